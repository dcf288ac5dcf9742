"""Error against the number of training rows, for several learners on the same draws.

Public: Learner, LearningCurve, LearningCurveResult, run. Every learner is trained on the same rows
in every draw and tested on the same fixed rows, so that two of them are compared row by row; what
was trained once is in the store. A learner too dear for the larger sizes says up to which it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.dataset import Dataset, Fold
from harness.errors import ConfigError, DataError
from harness.models.protocol import Identity
from harness.scores import require_rows
from harness.statistics import (
    Statistic,
    bootstrap,
    largest,
    log_ratio_of_sums,
    mean,
    with_variance,
)
from harness.store import MakeProgress, PredictionStore, row_digest

# training positions, tested positions, seed -> (n,) e_form in eV/atom, nan where not scored
Predict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
    """Something that is trained on some rows of a data set and predicts others."""

    identity: Identity  # all that its predictions depend on, apart from rows and seed
    predict: Predict
    max_size: int | None = None  # trained on no more rows than this; None: on any number

    @property
    def name(self) -> str:
        return self.identity.name


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Which sizes, how often drawn, and on how many rows tested."""

    sizes: tuple[int, ...] = (10, 30, 100, 300, 1000)
    n_draws: int = 5
    n_test: int = 1000  # a fixed sample of the fold's test rows, or all if there are fewer
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2 or list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigError(f"sizes={self.sizes}: give training sizes from 2 up, ascending")
        if self.n_draws < 2 or self.n_test < 2:
            raise ConfigError(
                f"n_draws={self.n_draws}, n_test={self.n_test}: an interval needs two of each"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningCurveResult:
    """Errors of every learner, size and draw on the rows that all of them scored."""

    config: LearningCurve
    dataset: str
    ids: np.ndarray  # (n,) tested rows
    formulas: np.ndarray  # (n,) clusters of the intervals
    # learner -> (its sizes, draws, n), nan where a draw does not test the row
    errors_ev_per_atom: Mapping[str, np.ndarray]
    of: int
    excluded: Mapping[str, int]  # asked for, not scored: reason -> rows
    absent: Mapping[str, int]  # never asked
    inputs: Mapping[str, str]
    details: Mapping[str, object]
    subject: str = ""  # what documented verdicts stand under

    def sizes_of(self, *names: str) -> tuple[int, ...]:
        """The sizes that all of these learners were trained at."""
        if unknown := [name for name in names if name not in self.errors_ev_per_atom]:
            known = ", ".join(self.errors_ev_per_atom)
            raise ConfigError(f"no learner {unknown[0]!r}; this result has {known}")
        fewest = min(len(self.errors_ev_per_atom[name]) for name in names)
        return self.config.sizes[:fewest]

    def mae(self, name: str, size: int) -> Interval:
        """Mean absolute error over rows and draws, eV/atom."""
        errors = self._abs(name, size)
        return self._interval(
            np.nanmean(errors, axis=1),
            np.nanmean(errors, axis=0)[None],
            mean,
        )

    def ratio(self, size: int, mine: str, other: str) -> Interval:
        """MAE of one learner over that of another, geometric mean over draws.

        The interval counts two sources of chance, which rows were drawn for training and which are
        tested, each with its own degrees of freedom.
        """
        a, b = self._abs(mine, size), self._abs(other, size)
        log = self._interval(
            np.log(np.nanmean(a, axis=1) / np.nanmean(b, axis=1)),
            np.stack([np.nanmean(a, axis=0), np.nanmean(b, axis=0)]),
            log_ratio_of_sums,
        )
        middle, low, high = (float(np.exp(x)) for x in (log.estimate, log.low, log.high))
        return replace(
            log,
            estimate=middle,
            low=low,
            high=high,
            resolution=middle * (log.resolution or 0.0),
            units=None,
        )

    def with_errors_scaled(self, name: str, factor: float) -> LearningCurveResult:
        """The same trainings with one learner's errors so many times as large: a planted fault."""
        errors = {**self.errors_ev_per_atom, name: factor * self.errors_ev_per_atom[name]}
        return replace(self, errors_ev_per_atom=errors)

    def caught_up_at(self, mine: str, other: str) -> int | None:
        """The smallest size from which on ``other`` is not shown to be worse; None: not in range.

        A size counts as caught up where the interval of the ratio reaches one.
        """
        sizes = self.sizes_of(mine, other)
        behind = [self.ratio(size, mine, other).high < 1 for size in sizes]
        for i, size in enumerate(sizes):
            if not any(behind[i:]):
                return size
        return None

    def advantage(self, mine: str, other: str, *, up_to: int) -> Measurement:
        """The largest ratio of MAEs over the sizes up to ``up_to``.

        Its interval reaches from the largest low end to the largest high end of the sizes: below a
        bound only if every size is, above it if one is.

        Raises:
            ConfigError: a learner is unknown, or neither was trained at so small a size.
        """
        sizes = self.sizes_of(mine, other)
        ratios = {size: self.ratio(size, mine, other) for size in sizes}
        small = [ratio for size, ratio in ratios.items() if size <= up_to]
        if not small:
            raise ConfigError(f"no size up to {up_to} among {sizes}")
        caught_up = self.caught_up_at(mine, other)
        for ratio in small:
            require_rows(ratio, self.formulas, f"MAE of {mine} over {other}")
        return Measurement(
            quantity=f"MAE of {mine} over {other}, largest ratio up to N = {sizes[len(small) - 1]}",
            interval=largest(small),
            scored=len(self.ids),
            of=self.of,
            dataset=self.dataset,
            model=mine,
            subject=self.subject,
            excluded=self.excluded,
            absent=self.absent,
            inputs=self.inputs,
            details={
                **self.details,
                "config": asdict(self.config),
                "ratios": [
                    {"n": size, "ratio": r.estimate, "low": r.low, "high": r.high}
                    for size, r in ratios.items()
                ],
                "mae_ev_per_atom": [
                    {"n": size, **{name: self.mae(name, size).estimate for name in (mine, other)}}
                    for size in sizes
                ],
                "catches_up_at": caught_up or f"not up to {sizes[-1]}",
            },
        )

    def _abs(self, name: str, size: int) -> np.ndarray:
        """(draws, n) absolute errors at one size, nan where a draw does not test the row."""
        if size not in self.sizes_of(name):
            raise ConfigError(f"{name} was not trained on {size} rows, but {self.sizes_of(name)}")
        return np.abs(self.errors_ev_per_atom[name][self.config.sizes.index(size)])

    def _interval(self, of_draws: np.ndarray, rows: np.ndarray, statistic: Statistic) -> Interval:
        """Mean over draws; its chance is that of the tested formulas and that of the rows drawn.

        Five draws are too few to resample, so their variance is added with its own degrees of
        freedom.

        Args:
            of_draws: (draws,) the quantity in each draw.
            rows: columns of the statistic, means over draws.
        """
        over_rows = bootstrap(rows, self.formulas, statistic)
        moved = float(of_draws.mean()) - over_rows.estimate  # a mean of ratios is no ratio of means
        centred = replace(
            over_rows,
            estimate=over_rows.estimate + moved,
            low=over_rows.low + moved,
            high=over_rows.high + moved,
            units=None,
        )
        n_draws = len(of_draws)
        variance = float(of_draws.var(ddof=1)) / n_draws
        return with_variance(
            centred, variance, n_draws - 1, source=f"{n_draws} draws of the training rows"
        )


def run(
    fold: Fold,
    learners: Sequence[Learner],
    store: PredictionStore,
    config: LearningCurve = LearningCurve(),
    progress: MakeProgress | None = None,
    *,
    subject: str = "",
) -> LearningCurveResult:
    """Train every learner on every draw of every size and test it on one sample of test rows.

    Within a draw the larger training sets hold the smaller ones. Of a cross-fitted fold, draw k
    trains and tests on split k, and begins again after the last.

    Args:
        subject: whose claims the comparison is, by the name documented verdicts stand under.
    Raises:
        ConfigError: two learners share a name, or none goes up to the smallest size.
        DataError: a split has fewer training rows than the largest size asks for, or a learner
            scores no row.
    """
    dataset = fold.dataset
    names = [learner.name for learner in learners]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"learners {names}: give at least one, and each a name of its own")
    sizes_of = {
        learner.name: [s for s in config.sizes if learner.max_size is None or s <= learner.max_size]
        for learner in learners
    }
    if idle := [name for name, sizes in sizes_of.items() if not sizes]:
        raise ConfigError(f"{idle[0]} goes to no size of {config.sizes}; leave it out")
    tested, draws = _draws(fold, config)
    trained = sum(len(sizes) for sizes in sizes_of.values()) * config.n_draws
    tick = progress("learning curves, training sets", trained) if progress else None
    errors = {}
    for learner in learners:
        sizes = sizes_of[learner.name]
        found = np.full((len(sizes), config.n_draws, len(tested)), np.nan)
        for at, size in enumerate(sizes):
            for draw, (train, test) in enumerate(draws):
                predicted = _remembered(dataset, learner, train[:size], tested[test], draw, store)
                found[at, draw, test] = predicted - dataset.target_ev_per_atom[tested[test]]
                if tick is not None:
                    tick(1)
        errors[learner.name] = found
    asked = np.zeros((config.n_draws, len(tested)), dtype=bool)
    for draw, (_, test) in enumerate(draws):
        asked[draw, test] = True
    keep = asked.any(axis=0)
    absent = {
        "tested in no draw": int((~keep).sum()),
        "not in the sample of test rows": len(fold.test_rows) - len(tested),
        "not in the data set at hand": fold.n_claimed - len(fold.test_rows),
    }
    excluded = {}
    for name, found in errors.items():
        scored = (np.isfinite(found) | ~asked).all(axis=(0, 1))
        if lost := int((keep & ~scored).sum()):
            excluded[f"not predicted by {name}"] = lost
        keep &= scored
    if not keep.any():
        raise DataError(
            f"no tested row of fold {fold.number} of {dataset.name} is predicted by all of "
            f"{', '.join(names)}: {excluded}. Leave out the learner that predicts none."
        )
    rows = tested[keep]
    return LearningCurveResult(
        config=config,
        dataset=dataset.name,
        ids=dataset.ids[rows],
        formulas=dataset.reduced_formulas()[rows],
        errors_ev_per_atom={name: found[:, :, keep] for name, found in errors.items()},
        of=fold.n_claimed,
        excluded=excluded,
        absent={reason: rows for reason, rows in absent.items() if rows},
        subject=subject,
        inputs={
            **dataset.inputs,
            **{learner.name: learner.identity.weights_sha256 for learner in learners},
        },
        details={"learners": {learner.name: learner.identity.settings for learner in learners}},
    )


def _draws(
    fold: Fold, config: LearningCurve
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Tested rows of the data set; and of each draw the training rows, in the order they are taken,
    with the positions among the tested rows of those it tests."""
    every, largest = fold.test_rows, max(config.sizes)
    if len(every) > config.n_test:
        sample = np.random.default_rng(config.seed).choice(every, config.n_test, replace=False)
        tested = every[np.isin(every, sample)]
    else:
        tested = every
    draws = []
    for draw in range(config.n_draws):
        at = draw % len(fold.splits)
        split = fold.splits[at]
        if len(split.train) < largest:
            raise DataError(
                f"fold {fold.number} of {fold.dataset.name} has {len(split.train)} training rows "
                f"(split {at}), and sizes go up to {largest}; ask for smaller ones"
            )
        order = np.random.default_rng((config.seed, draw)).permutation(split.train)
        test = np.flatnonzero(np.isin(tested, split.test))
        if len(test) == 0:
            raise DataError(
                f"none of the {len(tested)} tested rows of {fold.dataset.name} is in split {at}; "
                "raise n_test"
            )
        draws.append((order[:largest], test))
    return tested, draws


def _remembered(
    dataset: Dataset,
    learner: Learner,
    train: np.ndarray,
    test: np.ndarray,
    seed: int,
    store: PredictionStore,
) -> np.ndarray:
    """(n,) predictions of one trained learner, from the store if it was trained before."""

    def compute() -> dict[str, np.ndarray]:
        predicted = np.asarray(learner.predict(train, test, seed), dtype=np.float64)
        if predicted.shape != test.shape:
            raise DataError(
                f"{learner.name} gave predictions of shape {predicted.shape} for {len(test)} rows"
            )
        return {"e_form_ev_per_atom": predicted}

    inputs = {
        "train": _content(dataset, train, with_target=True),
        "test": _content(dataset, test, with_target=False),
        "seed": str(seed),
    }
    return store.arrays(learner.identity, inputs, compute)["e_form_ev_per_atom"]


def _content(dataset: Dataset, rows: np.ndarray, *, with_target: bool) -> str:
    """What the rows hold, so that other rows, or other targets on them, are another request."""
    crystals = dataset.crystals
    structure = dataset.compositions[rows] if crystals is None else crystals.row_hashes()[rows]
    targets = [dataset.target_ev_per_atom[rows]] if with_target else []
    return row_digest(structure, *targets)
