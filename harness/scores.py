"""Predictions beside their references on stated rows, and the measurements one takes of them.

`Scored` is what every runner returns about formation energies and every check asks questions of.
It never drops a row silently: rows that could not be scored are counted under their reason, apart
from those nobody asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from harness.claims import Interval, Measurement
from harness.errors import DataError
from harness.statistics import Statistic, bootstrap, mean, std_ratio, with_variance


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Formation energies of one subject on one fold.

    Raises:
        DataError: columns of different lengths, a prediction that is not finite, an id that comes
            twice, or rows that do not add up to ``of``.
    """

    model: str
    dataset: str
    ids: np.ndarray  # (n,) str, unique
    formulas: np.ndarray  # (n,) str reduced formulas, the clusters of every interval
    reference_ev_per_atom: np.ndarray  # (n,) float64
    predicted_ev_per_atom: np.ndarray  # (n,) float64, finite
    of: int  # rows the claim is about: n and all that is excluded or absent
    subject: str = ""  # what documented verdicts stand under; empty: the same as ``model``
    # Where the other rows went, reason -> rows: asked for and not scored, and never asked
    excluded: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)
    # (n,) each: what was predicted where the alignment was fitted without one group of its rows
    without_group_ev_per_atom: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        columns = (
            self.ids,
            self.formulas,
            self.reference_ev_per_atom,
            self.predicted_ev_per_atom,
            *self.without_group_ev_per_atom,
        )
        if len(lengths := {len(column) for column in columns}) != 1:
            raise DataError(f"{self.model}: columns of different lengths {sorted(lengths)}")
        if len(self.without_group_ev_per_atom) == 1:
            raise DataError(f"{self.model}: one group left out tells no variance; give two or more")
        for predicted in (self.predicted_ev_per_atom, *self.without_group_ev_per_atom):
            if len(bad := np.flatnonzero(~np.isfinite(predicted))):
                raise DataError(
                    f"{self.model}: {len(bad)} predictions are not finite, first "
                    f"{self.ids[bad[0]]}; count such rows as excluded, with the reason"
                )
        seen: set[str] = set()
        for row in self.ids.tolist():
            if row in seen:
                raise DataError(
                    f"{self.model}: row {row} comes twice; a row counts once in a score"
                )
            seen.add(row)
        counted = len(self) + sum(self.excluded.values()) + sum(self.absent.values())
        if counted != self.of:
            raise DataError(
                f"{self.model}: {len(self)} scored + {dict(self.excluded)} excluded + "
                f"{dict(self.absent)} absent are {counted} rows, not {self.of}; say of every row "
                "where it went"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def error_ev_per_atom(self) -> np.ndarray:
        """(n,) predicted minus reference."""
        return self.predicted_ev_per_atom - self.reference_ev_per_atom

    def mae(self) -> Measurement:
        """Mean absolute error, eV/atom."""
        interval = self._interval(lambda e: np.abs(e - self.reference_ev_per_atom))
        return self._measure("MAE of e_form", interval)

    def offset(self) -> Measurement:
        """Mean error, eV/atom; positive where formation energies come out too high."""
        interval = self._interval(lambda e: e - self.reference_ev_per_atom)
        return self._measure("mean error of e_form", interval)

    def spread(self) -> Measurement:
        """Standard deviation of the predictions over that of the references."""
        x = self.reference_ev_per_atom - self.reference_ev_per_atom.mean()

        def columns(predicted: np.ndarray) -> np.ndarray:
            y = predicted - predicted.mean()
            return np.stack([x, x**2, y, y**2])

        return self._measure(
            "std of predicted e_form over std of reference", self._interval(columns, std_ratio)
        )

    def mae_minus(self, other: Scored) -> Measurement:
        """Difference of MAEs, paired on the rows both scored; negative: self is better."""
        mine = self.on(other.ids)
        theirs = other.on(mine.ids)
        reference = mine.reference_ev_per_atom
        if not np.array_equal(reference, theirs.reference_ev_per_atom):
            raise DataError(
                f"{self.model} and {other.model} were scored against different references on "
                f"{self.dataset}; a paired difference needs the same targets"
            )
        my_error, their_error = np.abs(mine.error_ev_per_atom), np.abs(theirs.error_ev_per_atom)
        interval = mine._interval(lambda e: np.abs(e - reference) - their_error)
        interval = theirs._with_refits_error(interval, lambda e: my_error - np.abs(e - reference))
        measured = mine._measure(f"MAE of {self.model} minus MAE of {other.model}", interval)
        return replace(
            measured,
            inputs={**other.inputs, **measured.inputs},
            details={
                **measured.details,
                "predictions_sha256": self.predictions_sha256,  # also of rows the other lacks
                "mae_of": {
                    self.model: float(my_error.mean()),
                    other.model: float(their_error.mean()),
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
            without_group_ev_per_atom=tuple(e[keep] for e in self.without_group_ev_per_atom),
            excluded=excluded,
        )

    def with_predictions(self, change: Callable[[np.ndarray], np.ndarray], *, model: str) -> Scored:
        """The same rows with altered predictions: how controls plant a fault."""
        return replace(
            self,
            model=model,
            predicted_ev_per_atom=change(self.predicted_ev_per_atom.copy()),
            without_group_ev_per_atom=tuple(
                change(e.copy()) for e in self.without_group_ev_per_atom
            ),
        )

    def with_errors_scaled(self, factor: float) -> Scored:
        """The same rows with every error so many times as large."""
        reference = self.reference_ev_per_atom
        return self.with_predictions(
            lambda e: reference + factor * (e - reference),
            model=f"{self.model}, errors times {factor:.4g}",
        )

    def with_errors_shifted(self, ev_per_atom: float) -> Scored:
        """The same rows with so much added to every prediction."""
        return self.with_predictions(
            lambda e: e + ev_per_atom, model=f"{self.model}, {ev_per_atom:+.4g} eV/atom"
        )

    def _interval(
        self, columns: Callable[[np.ndarray], np.ndarray], statistic: Statistic = mean
    ) -> Interval:
        """Over formulas, and over the rows an alignment was fitted to, where there is one.

        Args:
            columns: from (n,) predictions to the (k, n) or (n,) columns of the statistic.
        """
        interval = bootstrap(columns(self.predicted_ev_per_atom), self.formulas, statistic)
        return self._with_refits_error(interval, columns, statistic)

    def _with_refits_error(
        self,
        interval: Interval,
        columns: Callable[[np.ndarray], np.ndarray],
        statistic: Statistic = mean,
    ) -> Interval:
        """The interval widened by what the measured would vary with other rows to refit on.

        Delete-a-group jackknife: the variance is (G - 1)/G times the sum of squared deviations of
        the G values that were measured with one group left out. Source: J. Shao and D. Tu, The
        Jackknife and Bootstrap (1995), section 2.3.
        """
        groups = len(self.without_group_ev_per_atom)
        if not groups:
            return interval
        values = []
        for predicted in self.without_group_ev_per_atom:
            rows = np.atleast_2d(columns(predicted))
            values.append(float(statistic(np.array([rows.shape[1], *rows.sum(axis=1)]))))
        variance = (groups - 1) * float(np.var(values))
        source = f"the refit's own error, {groups} groups"
        return with_variance(interval, variance, groups - 1, source=source)

    @cached_property
    def predictions_sha256(self) -> str:
        """Of ids and predictions: claims that give them one name must have measured one thing."""
        ids = "\n".join(self.ids.tolist()).encode()
        return hashlib.sha256(ids + self.predicted_ev_per_atom.tobytes()).hexdigest()

    def _measure(self, quantity: str, interval: Interval) -> Measurement:
        require_rows(interval, self.formulas, quantity)
        return Measurement(
            quantity=quantity,
            interval=interval,
            scored=len(self),
            of=self.of,
            dataset=self.dataset,
            model=self.model,
            subject=self.subject,
            excluded=self.excluded,
            absent=self.absent,
            inputs=self.inputs,
            details={**self.details, "predictions_sha256": self.predictions_sha256},
        )


def require_rows(interval: Interval, formulas: np.ndarray, quantity: str) -> None:
    """Refuse an interval over other rows than were scored, or over other units than their formulas.

    Raises:
        DataError: more or fewer rows or units, such as rows drawn twice or as if independent.
    """
    units = len(formulas) if interval.is_exact else len(np.unique(formulas))
    if (interval.n, interval.n_clusters) != (len(formulas), units):
        raise DataError(
            f"{quantity}: {len(formulas)} rows of {units} formulas were scored, and the interval "
            f"is over {interval.n} rows in {interval.n_clusters} units; draw it over what is scored"
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


def mean_mae_minus(seeds: Sequence[Scored], other: Scored, *, model: str) -> Measurement:
    """Mean over trainings of their MAEs minus another's MAE, paired row by row.

    The interval counts two sources of chance: which formulas are tested, and which seeds were
    drawn, with one degree of freedom fewer than there are seeds.

    Args:
        seeds: two or more trainings that differ by their seed, on the same rows.
        model: what the mean of them is called.
    Raises:
        DataError: fewer than two, or they were scored on other rows or against other references.
    """
    if (n := len(seeds)) < 2:
        raise DataError(f"{n} seed(s): their spread takes two at least")
    measured = typical(seeds, model=model).mae_minus(other)
    maes = [float(np.abs(seed.on(other.ids).error_ev_per_atom).mean()) for seed in seeds]
    interval = with_variance(
        measured.interval,
        float(np.var(maes, ddof=1)) / n,
        n - 1,
        source=f"the spread over {n} seeds",
    )
    details = {**measured.details, "mae_of_seeds_ev_per_atom": maes}
    return replace(measured, interval=interval, details=details)


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
