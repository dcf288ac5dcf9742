"""Average several subjects of one kind and measure what the average is worth.

Public: EnsembleResult, run. Members are predictions of the same rows against the
same references; their mean is a subject like any other, with its own name, and can be recorded.

Two kinds of statement must be kept apart. That the mean is on no row worse than its members on
average is the triangle inequality: it says that the record is what it claims to be, and nothing
about the members. How much better the mean is says how far they differ, which is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import DataError
from harness.scores import Scored, require_rows
from harness.statistics import bootstrap, ratio_of_sums
from harness.store import row_digest


class BySize(NamedTuple):
    """Means over so many of the members, every choice of them."""

    n_members: int
    mae_ev_per_atom: float  # averaged over the choices
    lowest: float  # of a choice
    highest: float
    spread_ev_per_atom: float  # expected between two such means of members drawn anew
    maes_ev_per_atom: tuple[float, ...]  # of each choice


@dataclass(frozen=True, kw_only=True, eq=False)
class EnsembleResult:
    """Members and the column that stands for their mean; `replace(result, mean=...)` tries another.

    Raises:
        DataError: fewer than two members, or a column about other rows or other references.
    """

    members: tuple[Scored, ...]
    mean: Scored

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise DataError(f"{len(self.members)} member(s): an ensemble needs at least two")
        first = self.members[0]
        for other in (*self.members[1:], self.mean):
            if not np.array_equal(first.ids, other.ids):
                raise DataError(
                    f"{first.model} has {len(first)} rows and {other.model} {len(other)}, or in "
                    "another order; give all members the same rows: scored.on(ids)"
                )
            if not np.array_equal(first.reference_ev_per_atom, other.reference_ev_per_atom):
                raise DataError(
                    f"{first.model} and {other.model} were scored against different references on "
                    f"{first.dataset}; a mean of members needs one set of targets"
                )

    @property
    def errors_ev_per_atom(self) -> np.ndarray:
        """(m, n) predicted minus reference of each member."""
        return np.stack([member.error_ev_per_atom for member in self.members])

    @property
    def spread_ev_per_atom(self) -> np.ndarray:
        """(n,) standard deviation over members of each row's prediction (m - 1 in the divisor)."""
        return np.asarray(self.errors_ev_per_atom.std(axis=0, ddof=1))

    def drawn_together(self, share: float) -> EnsembleResult:
        """Members that have lost so much of what tells them from the first: how a control plants a
        fault. At 1 the first is there as often as there are members."""
        first = self.members[0].predicted_ev_per_atom
        closer = [
            member.with_predictions(lambda e: first + (1 - share) * (e - first), model=member.model)
            for member in self.members
        ]
        return run(closer, name=self.mean.model)

    def excess(self) -> Measurement:
        """Largest error of the mean above the mean of the members' errors, over rows.

        Zero to rounding for any predictions, by the triangle inequality, so long as the column is
        the mean of just these members on just these rows. Exact: there is nothing to sample.
        """
        bound = np.abs(self.errors_ev_per_atom).mean(axis=0)
        excess = np.abs(self.mean.error_ev_per_atom) - bound
        return self._measure(
            "largest |error| of the mean above the members' mean |error|, over rows",
            Interval.exact(float(excess.max()), n=len(self.mean)),
            rows_above=int((excess > 1e-9).sum()),
        )

    def distance(self) -> Measurement:
        """Spread between members over their error: mean standard deviation over mean |error|."""
        error = np.abs(self.errors_ev_per_atom).mean(axis=0)
        interval = bootstrap(
            np.stack([self.spread_ev_per_atom, error]),
            self.mean.formulas,
            ratio_of_sums,
        )
        return self._measure("spread between members over their error", interval)

    def gain(self) -> Measurement:
        """Mean of the members' MAEs minus the MAE of the mean, paired row by row, eV/atom."""
        saved = np.abs(self.errors_ev_per_atom).mean(axis=0) - np.abs(self.mean.error_ev_per_atom)
        interval = bootstrap(saved, self.mean.formulas)
        return self._measure("mean of the members' MAEs minus MAE of their mean", interval)

    def last_step(self) -> Measurement:
        """MAE of means over all members but one, averaged, minus the MAE of the mean, eV/atom.

        Never below zero: the mean of m is the mean of its means of m - 1. How far above says
        whether one member more is still worth its price.
        """
        m = len(self.members)
        saved = self._abs_errors(m - 1).mean(axis=0) - np.abs(self.mean.error_ev_per_atom)
        return self._measure(
            f"MAE of means of {m - 1} minus MAE of the mean of {m}",
            bootstrap(saved, self.mean.formulas),
            by_size=[row._asdict() for row in self.by_size()],
        )

    def by_size(self) -> list[BySize]:
        """How error and spread fall with the number of members, from one to all of them."""
        spread = float(self.spread_ev_per_atom.mean())
        rows = []
        for size in range(1, len(self.members) + 1):
            maes = self._abs_errors(size).mean(axis=1)
            rows.append(
                BySize(
                    n_members=size,
                    mae_ev_per_atom=float(maes.mean()),
                    lowest=float(maes.min()),
                    highest=float(maes.max()),
                    # Means of k members drawn independently differ by the members' spread over √k;
                    # the choices at hand share members, so their own spread would be too small.
                    spread_ev_per_atom=spread / size**0.5,
                    maes_ev_per_atom=tuple(maes.tolist()),
                )
            )
        return rows

    def _abs_errors(self, size: int) -> np.ndarray:
        """(choices, n) |error| of the mean over every choice of ``size`` members."""
        errors = self.errors_ev_per_atom
        choices = combinations(range(len(self.members)), size)
        return np.stack([np.abs(errors[list(choice)].mean(axis=0)) for choice in choices])

    def _measure(self, quantity: str, interval: Interval, **details: object) -> Measurement:
        require_rows(interval, self.mean.formulas, quantity)
        maes = np.abs(self.errors_ev_per_atom).mean(axis=1)
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(self.mean),
            of=self.mean.of,
            dataset=self.mean.dataset,
            model=self.mean.model,
            subject=self.mean.subject,
            excluded=self.mean.excluded,
            absent=self.mean.absent,
            inputs=self.mean.inputs,
            details={
                **self.mean.details,
                "predictions_sha256": self.mean.predictions_sha256,
                "mae_of_members": maes.tolist(),
                "mae_of_mean": float(np.abs(self.mean.error_ev_per_atom).mean()),
                "mean_spread_ev_per_atom": float(self.spread_ev_per_atom.mean()),
                **details,
            },
        )


def run(members: Sequence[Scored], *, name: str | None = None) -> EnsembleResult:
    """The mean of the members' predictions, in eV/atom, as a subject of its own.

    Args:
        members: two or more, on the same rows in the same order.
        name: of the mean; by default it says how many of what were averaged.
    Raises:
        DataError: fewer than two members, or they are about different rows or references.
    """
    if not members:
        raise DataError("no members: an ensemble needs at least two")
    first = members[0]
    kinds = list(dict.fromkeys(member.model for member in members))
    mean = replace(
        first,
        model=name or f"mean of {len(members)} {' and '.join(kinds)}",
        without_group_ev_per_atom=(),
        inputs={key: value for member in members for key, value in member.inputs.items()},
        details={
            "members": [
                {
                    "model": member.model,
                    "settings": member.details.get("settings", {}),
                    "predictions_sha256": row_digest(member.predicted_ev_per_atom),
                }
                for member in members
            ]
        },
    )
    checked = EnsembleResult(members=tuple(members), mean=mean)  # rows agree before they are added
    column = np.mean([member.predicted_ev_per_atom for member in members], axis=0)
    return replace(checked, mean=replace(mean, predicted_ev_per_atom=column))
