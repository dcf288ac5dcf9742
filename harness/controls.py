"""How large a planted fault has to be: as small as these rows can tell from the bound.

A control that plants a fault a hundred times too large shows that subtraction works. Here a fault
is grown, on the subject's own predictions, until what is measured lies beyond the claim's bound by
so much that four of five such samples would refute it. If no fault up to the largest that would
matter is told from the bound, the rows resolve nothing useful, and the control says that.

Public: grown, Grown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from harness.claims import Bound, Interval, Measurement
from harness.errors import CannotResolve

# Of the half-width of a 95 % interval (1.96 standard errors): the 0.84 that give 80 % power.
_POWER = 0.84 / 1.96
_CLOSE = 0.05  # of a half-width: no need to size a fault better than this
_MOST_STEPS = 40


class Grown(NamedTuple):
    """A measurement with a fault just large enough, and the size it took."""

    measurement: Measurement
    size: float


def grown(
    measure: Callable[[float], Measurement],
    bound_on: Callable[[str], Bound],
    least: float,
    largest: float,
) -> Grown:
    """The smallest fault that these rows refute with 80 % power.

    Args:
        measure: from the size of the fault to what is measured with it; the further from ``least``,
            the further it goes in one direction.
        bound_on: from a data set's name to the bound.
        least: a size at which the measurement is not refuted, such as none at all.
        largest: beyond it a fault is so large that noticing it says little.
    Raises:
        CannotResolve: the fault of size ``largest`` is not refuted with that power, or the one of
            size ``least`` is already, as where the subject is refuted on its own.
    """

    def beyond(size: float) -> tuple[float, Measurement]:
        found = measure(size)
        return _beyond(bound_on(found.dataset), found.interval), found

    (inside, _), (outside, found) = beyond(least), beyond(largest)
    if inside >= 0:
        raise CannotResolve(
            f"{found.quantity}: a fault of size {least:g} is refuted already, so that noticing a "
            "larger one says nothing"
        )
    if outside < 0 or found.interval.unsettled:
        i = found.interval
        raise CannotResolve(
            f"{found.quantity}: {i.n_clusters} units cannot tell a fault of size {largest:g} from "
            f"the bound: {i.estimate:.4g} [{i.low:.4g}, {i.high:.4g}]"
            + (f" ({i.unsettled})" if i.unsettled else "")
        )
    near, far = least, largest
    for _ in range(_MOST_STEPS):
        # Where the line through both meets zero, but never next to an end, and the middle at times.
        part = min(max(-inside / (outside - inside), 0.05), 0.95)
        middle = near + (far - near) * part
        value, candidate = beyond(middle)
        if value >= 0:
            far, outside, found = middle, value, candidate
            if value <= _CLOSE:
                break
            inside /= 2  # Illinois: the end that stays counts half, or it would stay for ever
        else:
            near, inside = middle, value
            outside /= 2
    return Grown(found, far)


def _beyond(bound: Bound, interval: Interval) -> float:
    """How far past the point of 80 % power the interval lies, in half-widths of its nearer side."""
    ends = []
    if bound.high is not None:
        ends.append((interval.low - bound.high, interval.estimate - interval.low))
    if bound.low is not None:
        ends.append((bound.low - interval.high, interval.high - interval.estimate))
    scale = max(interval.high - interval.low, 1e-300) / 2
    return max((past - _POWER * half) / scale for past, half in ends)
