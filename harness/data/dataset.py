"""A set of crystals with formation energies, and how it is split into what fits and what is scored.

Public: Dataset, Fold, Split, Rows, cross_fitted. Row positions count from 0 in the dataset at hand;
`index` holds the official row numbers where there are any.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from harness.data.crystals import N_ELEMENTS, Crystals
from harness.data.elements import reduced_formulas
from harness.errors import ConfigError, DataError

FEW_ROWS = 2000  # fewer than these take small batches: an epoch is to have some dozens of steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """One fit and the rows it is scored on. Both hold row positions into the dataset."""

    train: np.ndarray  # (k,) int64, may be empty where nothing is fitted
    test: np.ndarray  # (m,) int64

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            rows = getattr(self, name)
            if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu":
                raise DataError(
                    f"{name} holds row positions as a (k,) integer array, not {rows!r:.80}. "
                    "Use np.flatnonzero on a mask."
                )
        if any(rows.size and rows.min() < 0 for rows in (self.train, self.test)):
            raise DataError("row positions count from 0; a split holds a negative one")
        trained = np.zeros(max(rows.max(initial=-1) for rows in (self.train, self.test)) + 1, bool)
        trained[self.train] = True
        if len(leaked := np.unique(self.test[trained[self.test]])):
            raise DataError(
                f"{len(leaked)} rows are in train and in test (first {leaked[:5].tolist()}). "
                "A score on rows that were fitted says nothing; split them apart."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """Some rows of a dataset, gathered when asked for."""

    dataset: Dataset
    positions: np.ndarray  # (k,) int64 row positions into the dataset

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def crystals(self) -> Crystals:
        """Raises DataError where the dataset holds compositions only."""
        return self.dataset.require_crystals()[self.positions]

    @property
    def target_ev_per_atom(self) -> np.ndarray:
        """(k,) float64."""
        return self.dataset.target_ev_per_atom[self.positions]

    @property
    def ids(self) -> np.ndarray:
        """(k,) str."""
        return self.dataset.ids[self.positions]

    @property
    def compositions(self) -> np.ndarray:
        """(k, 118) float64 atoms of each element, column Z - 1."""
        return self.dataset.compositions[self.positions]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One split of an official fold, or the several of a small cross-fitted set.

    A row is tested at most once in a fold, by what was fitted on other rows.
    """

    dataset: Dataset
    number: int
    splits: tuple[Split, ...]
    n_claimed: int  # rows the claim is about, present or not: 26,551 for mp_e_form fold 0

    def __post_init__(self) -> None:
        rows = self.test_rows
        if len(np.unique(rows)) != len(rows):
            raise DataError(
                f"fold {self.number} of {self.dataset.name} tests a row more than once. Every row "
                "counts once in a score; split anew."
            )

    @property
    def test_rows(self) -> np.ndarray:
        """(m,) int64 positions of every tested row, split after split."""
        return np.concatenate([np.empty(0, np.int64), *(split.test for split in self.splits)])

    @property
    def trains_on_few(self) -> bool:
        """Whether a split has so few training rows that settings for many would learn little."""
        return min((len(split.train) for split in self.splits), default=0) < FEW_ROWS

    @property
    def is_cross_fitted(self) -> bool:
        return len(self.splits) != 1

    @property
    def train(self) -> Rows:
        """Raises DataError for a cross-fitted fold, which has no one training set."""
        return Rows(dataset=self.dataset, positions=self._only_split("training").train)

    @property
    def test(self) -> Rows:
        """Raises DataError for a cross-fitted fold, where each test set has its own fit."""
        return Rows(dataset=self.dataset, positions=self._only_split("test").test)

    def _only_split(self, which: str) -> Split:
        if self.is_cross_fitted:
            raise DataError(
                f"fold {self.number} of {self.dataset.name} is cross-fitted in {len(self.splits)} "
                f"splits and has no one {which} set. Go through fold.splits, or use fold.test_rows "
                "where nothing is fitted."
            )
        return self.splits[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Structures or compositions with formation energies, in eV per atom.

    Folds are matbench's own where the rows carry official numbers (`index`), else those given in
    `fold_splits`, else a single fold 0 that tests every row and trains on none.

    Raises:
        DataError: lengths differ, a target is not finite, an id or official number comes twice.
    """

    name: str  # "matbench_mp_e_form", "matbench_mp_e_form (subset)", "embedded", "thermochemistry"
    ids: np.ndarray  # (n,) str, unique
    target_ev_per_atom: np.ndarray  # (n,) float64 formation energies, finite
    crystals: Crystals | None  # None where only compositions are known
    compositions: np.ndarray  # (n, 118) float64 atoms of each element in the cell, column Z - 1
    inputs: dict[str, str]  # file name -> sha256 of what was read
    source: str
    licence: str
    is_subset: bool  # fewer rows than the set the name stands for
    n_official: int  # rows of the set the name stands for
    index: np.ndarray | None = None  # (n,) int64 official 0-based row numbers, None if not matbench
    fold_splits: tuple[tuple[Split, ...], ...] = ()  # fold_splits[k]: the splits of fold k
    fold_sizes: tuple[int, ...] = ()  # rows fold k is about; by default those its splits test
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)  # further (n, ...) columns

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns: dict[str, np.ndarray | Crystals | None] = {
            "target_ev_per_atom": self.target_ev_per_atom,
            "crystals": self.crystals,
            "compositions": self.compositions,
            "index": self.index,
            **{f"extras[{key!r}]": column for key, column in self.extras.items()},
        }
        for name, column in columns.items():
            if column is not None and len(column) != n:
                raise DataError(
                    f"{self.name}: {name} has {len(column)} rows and there are {n} ids. "
                    "Build every column from the same rows."
                )
        if self.compositions.shape != (n, N_ELEMENTS):
            raise DataError(
                f"{self.name}: compositions have shape {self.compositions.shape}, expected "
                f"({n}, {N_ELEMENTS}): one column per element, Z - 1."
            )
        if (empty := np.flatnonzero(~(self.compositions.sum(axis=1) > 0))).size:
            raise DataError(
                f"{self.name}: row {empty[0]} ({self.ids[empty[0]]}) has no atoms in compositions. "
                "Remove the row or restore its composition."
            )
        if self.target_ev_per_atom.dtype != np.float64:
            raise DataError(
                f"{self.name}: targets are {self.target_ev_per_atom.dtype}, expected float64. "
                "Convert them where they are read."
            )
        bad = np.flatnonzero(~np.isfinite(self.target_ev_per_atom))
        if len(bad):
            raise DataError(
                f"{self.name}: {len(bad)} targets are not finite, first row {bad[0]} "
                f"({self.ids[bad[0]]}): {self.target_ev_per_atom[bad[0]]}. Remove or restore them."
            )
        if self.index is not None and n:
            low, high = int(self.index.min()), int(self.index.max())
            if low < 0 or high >= self.n_official:
                raise DataError(
                    f"{self.name}: official row numbers go from {low} to {high}, outside 0 to "
                    f"{self.n_official - 1}. They count from 0 in the official order."
                )
        if self.fold_sizes and len(self.fold_sizes) != len(self.fold_splits):
            raise DataError(
                f"{self.name}: {len(self.fold_sizes)} fold sizes for {len(self.fold_splits)} "
                "folds. Give one a fold, or none."
            )
        for name, keys in (("id", self.ids), ("official number", self.index)):
            if keys is not None and (first := _first_repeat(keys)) is not None:
                raise DataError(
                    f"{self.name}: {name} {keys[first]} of row {first} is there already. "
                    "A row counts once; remove the copy."
                )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "compositions only" if self.crystals is None else repr(self.crystals)
        return f"Dataset({self.name!r}, {len(self)} of {self.n_official} rows, {kind})"

    def require_crystals(self) -> Crystals:
        """The crystals, or DataError where the dataset holds compositions only."""
        if self.crystals is None:
            raise DataError(
                f"{self.name} holds compositions and energies without coordinates. For what needs "
                "structures use the official file: python -m harness fetch matbench_mp_e_form"
            )
        return self.crystals

    def reduced_formulas(self) -> np.ndarray:
        """(n,) str: rows of one formula are one cluster wherever rows are resampled."""
        return self._reduced_formulas

    @cached_property
    def _reduced_formulas(self) -> np.ndarray:
        return reduced_formulas(self.compositions)

    @property
    def n_folds(self) -> int:
        """Folds that fold() knows: 5 for matbench rows, else those given, else 1."""
        if self.fold_splits:
            return len(self.fold_splits)
        return 1 if self.index is None else 5

    def fold(self, number: int) -> Fold:
        """One fold, restricted to the rows present.

        Raises:
            ConfigError: no such fold, or matbench's definition is not installed.
        """
        if not 0 <= number < self.n_folds:
            raise ConfigError(
                f"{self.name} has folds 0 to {self.n_folds - 1}, not {number}. Ask for one of them."
            )
        if self.fold_splits:
            splits = self.fold_splits[number]
            n_claimed = self._fold_sizes()[number]
        elif self.index is not None:
            from harness.data.folds import official_folds

            fold_of = official_folds()
            tested = fold_of[self.index] == number
            splits = (Split(train=np.flatnonzero(~tested), test=np.flatnonzero(tested)),)
            n_claimed = int(np.count_nonzero(fold_of == number))
        else:
            splits = (Split(train=np.empty(0, np.int64), test=np.arange(len(self))),)
            n_claimed = self.n_official
        return Fold(dataset=self, number=number, splits=splits, n_claimed=n_claimed)

    def _fold_sizes(self) -> tuple[int, ...]:
        return self.fold_sizes or tuple(
            sum(len(split.test) for split in splits) for splits in self.fold_splits
        )

    def composition_sha256(self, rows: np.ndarray, *, with_target: bool) -> str:
        """Hex digest of the compositions of some rows, and of their targets; kept for the next ask.

        A fold's training rows are a hundred megabytes, and a session asks once a seed.
        """
        key = (hashlib.sha256(np.ascontiguousarray(rows).data).digest(), with_target)
        if key not in self._digests:
            total = hashlib.sha256()
            columns = [self.compositions, *([self.target_ev_per_atom] if with_target else [])]
            for column in columns:
                total.update(np.ascontiguousarray(column[rows], dtype="<f8").data)
            self._digests[key] = total.hexdigest()
        return self._digests[key]

    @cached_property
    def _digests(self) -> dict[tuple[bytes, bool], str]:
        return {}

    def take(self, rows: np.ndarray | slice) -> Dataset:
        """Some rows (positions, a mask or a slice), in the order given, each at most once.

        Folds keep their meaning: a row is tested in the fold it was tested in before, and
        n_claimed still counts the rows left out.
        """
        positions = np.arange(len(self))[rows]
        if len(np.unique(positions)) != len(positions):
            raise DataError(
                f"{self.name}: a row is taken twice. Take each once; resample the results instead."
            )
        new_position = np.full(len(self), -1)
        new_position[positions] = np.arange(len(positions))

        def kept(old: np.ndarray) -> np.ndarray:
            new = new_position[old]
            return new[new >= 0]

        return replace(
            self,
            ids=self.ids[rows],
            target_ev_per_atom=self.target_ev_per_atom[rows],
            crystals=None if self.crystals is None else self.crystals[rows],
            compositions=self.compositions[rows],
            index=None if self.index is None else self.index[rows],
            is_subset=self.is_subset or len(positions) < len(self),
            fold_splits=tuple(
                tuple(Split(train=kept(split.train), test=kept(split.test)) for split in splits)
                for splits in self.fold_splits
            ),
            fold_sizes=self._fold_sizes(),
            extras={name: column[rows] for name, column in self.extras.items()},
        )


def _first_repeat(keys: np.ndarray) -> int | None:
    """Position of the first entry that is equal to an earlier one."""
    if len(set(keys.tolist())) == len(keys):  # sorting as many texts takes far longer
        return None
    order = np.argsort(keys, kind="stable")
    repeats = order[1:][keys[order[1:]] == keys[order[:-1]]]
    return int(repeats.min())


def cross_fitted(compositions: np.ndarray, salt: str, n_splits: int = 5) -> tuple[Split, ...]:
    """Splits that test every row once; rows of one composition are tested together.

    The order is that of a hash rather than of a random generator, whose stream may change between
    releases.

    Args:
        compositions: (n, 118) whole numbers of atoms.
    """
    keys = []
    for counts in compositions.astype(np.int64):
        reduced = counts // np.gcd.reduce(counts)
        keys.append(" ".join(f"{z}:{reduced[z - 1]}" for z in np.flatnonzero(reduced) + 1))
    shuffled = sorted(set(keys), key=lambda key: hashlib.sha256(f"{salt}|{key}".encode()).digest())
    part_of_key = {key: place % n_splits for place, key in enumerate(shuffled)}
    part = np.array([part_of_key[key] for key in keys])
    return tuple(
        Split(train=np.flatnonzero(part != k), test=np.flatnonzero(part == k))
        for k in range(n_splits)
    )
