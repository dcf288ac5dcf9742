"""Predictions beside their references on stated rows, and the measurements one takes of them.

`Scored` is what every runner returns about formation energies and every check asks questions of.
It never drops a row silently: rows that could not be scored are counted under their reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import DataError
from harness.statistics import Statistic, bootstrap, std_ratio


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Formation energies of one subject on one fold."""

    model: str
    dataset: str
    ids: np.ndarray  # (n,) str, unique
    formulas: np.ndarray  # (n,) str reduced formulas, the clusters of every interval
    reference_ev_per_atom: np.ndarray  # (n,) float64
    predicted_ev_per_atom: np.ndarray  # (n,) float64, finite
    of: int  # rows the claim is about
    excluded: Mapping[str, int] = field(default_factory=dict)  # reason -> rows, adds up to of - n
    inputs: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {
            len(self.ids),
            len(self.formulas),
            len(self.reference_ev_per_atom),
            len(self.predicted_ev_per_atom),
        }
        if len(lengths) != 1:
            raise DataError(f"{self.model}: columns of different lengths {sorted(lengths)}")
        bad = np.flatnonzero(~np.isfinite(self.predicted_ev_per_atom))
        if len(bad):
            raise DataError(
                f"{self.model}: {len(bad)} predictions are not finite, first {self.ids[bad[0]]}; "
                "count such rows as excluded, with the reason"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def error_ev_per_atom(self) -> np.ndarray:
        """(n,) predicted minus reference."""
        return self.predicted_ev_per_atom - self.reference_ev_per_atom

    def mae(self) -> Measurement:
        """Mean absolute error, eV/atom."""
        interval = self._interval(np.abs(self.error_ev_per_atom))
        return self._measure("MAE of e_form", interval)

    def offset(self) -> Measurement:
        """Mean error, eV/atom; positive where formation energies come out too high."""
        return self._measure("mean error of e_form", self._interval(self.error_ev_per_atom))

    def spread(self) -> Measurement:
        """Standard deviation of the predictions over that of the references."""
        reference = self.reference_ev_per_atom - self.reference_ev_per_atom.mean()
        predicted = self.predicted_ev_per_atom - self.predicted_ev_per_atom.mean()
        columns = np.stack([reference, reference**2, predicted, predicted**2])
        return self._measure(
            "std of predicted e_form over std of reference", self._interval(columns, std_ratio)
        )

    def mae_minus(self, other: Scored) -> Measurement:
        """Difference of MAEs, paired on the rows both scored; negative: self is better."""
        mine = self.on(other.ids)
        theirs = other.on(mine.ids)
        if not np.array_equal(mine.reference_ev_per_atom, theirs.reference_ev_per_atom):
            raise DataError(
                f"{self.model} and {other.model} were scored against different references on "
                f"{self.dataset}; a paired difference needs the same targets"
            )
        difference = np.abs(mine.error_ev_per_atom) - np.abs(theirs.error_ev_per_atom)
        measured = mine._measure(
            f"MAE of {self.model} minus MAE of {other.model}", mine._interval(difference)
        )
        return replace(
            measured,
            inputs={**other.inputs, **measured.inputs},
            details={
                **measured.details,
                "mae_of": {
                    self.model: float(np.abs(mine.error_ev_per_atom).mean()),
                    other.model: float(np.abs(theirs.error_ev_per_atom).mean()),
                },
            },
        )

    def on(self, ids: np.ndarray) -> Scored:
        """The rows that are among ``ids``, in their order there; the others count as excluded."""
        position = {row_id: i for i, row_id in enumerate(self.ids.tolist())}
        keep = np.array([position[i] for i in ids.tolist() if i in position], dtype=np.int64)
        left_out = len(self) - len(keep)
        excluded = dict(self.excluded)
        if left_out:
            reason = "not scored by the other model"
            excluded[reason] = excluded.get(reason, 0) + left_out
        return replace(
            self,
            ids=self.ids[keep],
            formulas=self.formulas[keep],
            reference_ev_per_atom=self.reference_ev_per_atom[keep],
            predicted_ev_per_atom=self.predicted_ev_per_atom[keep],
            excluded=excluded,
        )

    def with_predictions(self, change: Callable[[np.ndarray], np.ndarray], *, model: str) -> Scored:
        """The same rows with altered predictions: how controls plant a fault."""
        return replace(
            self, model=model, predicted_ev_per_atom=change(self.predicted_ev_per_atom.copy())
        )

    def _interval(self, columns: np.ndarray, statistic: Statistic | None = None) -> Interval:
        if statistic is None:
            return bootstrap(columns, self.formulas)
        return bootstrap(columns, self.formulas, statistic)

    def _measure(self, quantity: str, interval: Interval) -> Measurement:
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(self),
            of=self.of,
            dataset=self.dataset,
            model=self.model,
            excluded=self.excluded,
            inputs=self.inputs,
            details=self.details,
        )


def typical(members: Sequence[Scored], *, model: str) -> Scored:
    """A subject that errs on every row as its members do on average: one of them, without its luck.

    Its predictions are the references plus the mean of the members' absolute errors.

    Raises:
        DataError: the members were scored on other rows or against other references.
    """
    first = members[0]
    for other in members[1:]:
        if not (
            np.array_equal(first.ids, other.ids)
            and np.array_equal(first.reference_ev_per_atom, other.reference_ev_per_atom)
        ):
            raise DataError(f"{first.model} and {other.model} were not scored on the same rows")
    error = np.mean([np.abs(member.error_ev_per_atom) for member in members], axis=0)
    return first.with_predictions(lambda _: first.reference_ev_per_atom + error, model=model)


class Standing(NamedTuple):
    """One model's MAE among several on the same rows, eV/atom."""

    name: str
    mae_ev_per_atom: float
    ci_low: float
    ci_high: float
    is_subject: bool
    n: int


def same_rows(subject: Scored, others: Sequence[Scored]) -> list[Standing]:
    """MAEs of several models on exactly the subject's rows, best first; rows missing show in n."""
    standings = []
    for scored in (subject, *(other.on(subject.ids) for other in others)):
        interval = scored.mae().interval
        standings.append(
            Standing(
                name=scored.model,
                mae_ev_per_atom=interval.estimate,
                ci_low=interval.low,
                ci_high=interval.high,
                is_subject=scored is subject,
                n=interval.n,
            )
        )
    return sorted(standings, key=lambda standing: standing.mae_ev_per_atom)
