"""Predictions on disk: addressed by content, written whole or not at all, never trusted unread.

An energy is addressed by who predicted it (name, hash of the weights, settings) and by the content
of the crystal itself, not by file or row number, so any sample of any data set finds what another
session computed. Each batch is one file with a checksum over all of it and the whole key in its
header. A file that is cut short, altered, of other rows or of another model is set aside with a
warning and its rows are computed again.

Only what says something about a row is kept for other sessions: a number, or a statement of the
project's own about the crystal. What somebody's code raised is a row's problem in this session, and
the next one asks again. What cannot be written is kept in memory, with one remark.

Layout: ``root/<16 hex digits of the model>/<16 hex digits of the batch>.npz`` for energies, in
a folder ``energy-forces-stress`` and the like beside them where more was asked for, and
``root/arrays/<16 hex digits of the key>.npz`` for whole results of trained subjects. While one is
trained, ``root/checkpoints`` holds how far it got, and ``root/locks`` that somebody is at it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.columns import NotReadable, address, is_there, read_columns, write_columns
from harness.errors import ConfigError, DataError, ModelError, Remark
from harness.execute import Execute, in_process
from harness.models.alignment import References, refit, refit_settings
from harness.models.protocol import Identity, Prediction, listening
from harness.models.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model

FORMAT = "mlip-claims predictions 1"
OPTIONAL = ("forces", "stress", "magmoms")  # what can be asked for beside the energy
_RAISED = "raised"  # of a batch in memory: rows of which nothing was found out
Progress = Callable[[int], None]  # told the number of rows just finished, stored ones included
MakeProgress = Callable[[str, int], Progress]  # what is done and how much of it -> Progress


class StoreWarning(Remark):
    """A stored file was damaged or stale, or could not be written; its rows are computed again."""


@dataclass
class Traffic:
    """What a session asked of the store: the evidence that nothing was computed twice."""

    found: int = 0
    computed: int = 0


class PredictionStore:
    """What was computed once, for every session after."""

    def __init__(self, root: Path, execute: Execute = in_process) -> None:
        self.root = root
        self.execute = execute
        self.traffic = Traffic()
        self._memory: dict[Path, dict[str, np.ndarray]] = {}  # what is for this session only
        self._remarked = False

    def energies(
        self, model: Model, crystals: Crystals, progress: Progress | None = None
    ) -> Prediction:
        """Energies of every row, computing only batches of which something is missing.

        As `predict`, and a batch that no session asked for is put together from others where they
        hold all of its rows, so that any sample of known rows is found.
        """
        return self._stored(model, crystals, ("energy",), progress, borrow=True)

    def predict(
        self,
        model: Model,
        crystals: Crystals,
        properties: Sequence[str] = ("energy", "forces", "stress"),
        progress: Progress | None = None,
    ) -> Prediction:
        """Properties of every row, computing only batches that no session asked for before.

        Batches are the model's own plan of exactly these crystals, and a batch is computed whole:
        what a killed session left is completed to the same bytes an undisturbed one would have
        written, and what a session read is what the next one reads.

        Args:
            properties: energy (always given), forces, stress, magmoms.
        Raises:
            NotAvailable: the model has no such property.
            ModelError: it gave something else than what it was asked for.
        """
        asked = ("energy", *(name for name in OPTIONAL if name in properties))
        if unknown := set(properties) - set(asked):
            raise ConfigError(
                f"properties={sorted(unknown)}; there are energy, {', '.join(OPTIONAL)}"
            )
        return self._stored(model, crystals, asked, progress, borrow=False)

    def _stored(
        self,
        model: Model,
        crystals: Crystals,
        properties: tuple[str, ...],
        progress: Progress | None,
        *,
        borrow: bool,
    ) -> Prediction:
        identity = model.identity.addressed()
        folder = self.root / address(identity)
        key: dict[str, Any] = {"identity": identity}
        if properties != ("energy",):
            folder, key = folder / "-".join(properties), {**key, "properties": list(properties)}
        hashes, n_atoms = crystals.row_hashes(), crystals.n_atoms
        plan = model.plan(crystals)
        paths = [folder / f"{address(hashes[rows].tobytes().hex())}.npz" for rows in plan]
        shapes = [_shapes(len(rows), int(n_atoms[rows].sum()), properties) for rows in plan]
        held = [
            self._read(path, key, partial(_unlike, hashes[rows], shape))
            for path, rows, shape in zip(paths, plan, shapes, strict=True)
        ]
        if borrow and any(batch is None for batch in held):
            others = set(folder.glob("*.npz")).difference(paths)
            elsewhere = self._rows(others, key, held)
            for i, rows in enumerate(plan):
                wanted = [row.tobytes() for row in hashes[rows]]
                if held[i] is None and all(row in elsewhere for row in wanted):
                    energy, problem = zip(*(elsewhere[row] for row in wanted), strict=True)
                    held[i] = borrowed = _columns(hashes[rows], np.array(energy), problem)
                    self._keep(paths[i], key, borrowed)
        missing = [
            rows if batch is None else rows[~_known(batch)]
            for rows, batch in zip(plan, held, strict=True)
        ]
        asked = [rows for rows in missing if len(rows)]
        computed = self.execute(model, crystals, asked, properties)

        result = _Table(crystals, properties)
        for path, rows, batch, again in zip(paths, plan, held, missing, strict=True):
            if batch is not None:
                result.fill(rows, batch)
            if len(again):
                shape = _shapes(len(again), int(n_atoms[again].sum()), properties)
                result.fill(again, _told(next(computed), hashes[again], shape))
                self._keep(path, key, result.columns(rows))
            self.traffic.computed += len(again)
            self.traffic.found += len(rows) - len(again)
            if progress is not None:
                progress(len(rows))
        return result.prediction()

    def arrays(
        self,
        identity: Identity,
        inputs: Mapping[str, str],
        compute: Callable[[], Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """Arrays of a trained subject, computed once for this identity and these inputs.

        ``inputs`` names what else the result depends on, such as the hash of the rows predicted.
        """
        key = {"identity": identity.addressed(), "inputs": dict(inputs)}
        path = self._path(key)
        if (stored := self._read(path, key)) is not None:
            self.traffic.found += 1
            return stored
        with listening() as raised:
            result = {name: np.asarray(array) for name, array in compute().items()}
        if raised:  # it may come out otherwise where nothing is raised
            self._memory[path] = result
        else:
            self._keep(path, key, result)
        self.traffic.computed += 1
        return dict(result)

    def trained(
        self,
        identity: Identity,
        inputs: Mapping[str, str],
        train: Callable[[Checkpoints], Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """As `arrays`, for what takes minutes: a training that was killed goes on where it was.

        Of sessions that ask for one training at one time, one trains; the others wait, and read.

        Args:
            train: handed the checkpoints to go on from and to save to; they are gone once its
                result is stored.
        """
        key = {"identity": identity.addressed(), "inputs": dict(inputs)}
        name = row_digest(np.array([json.dumps(key)]))[:16]
        checkpoints = Checkpoints(folder=self.root / "checkpoints" / name, key=key)
        stored = self._read(self._path(key), key)
        if stored is not None and not checkpoints.exist:  # else a session was killed in between
            self.traffic.found += 1
            return stored
        with self._alone(self.root / "locks" / f"{name}.lock"):
            result = self.arrays(identity, inputs, lambda: train(checkpoints))
            checkpoints.discard()  # of nobody else: whoever trains this has the lock
        return result

    # --- files --------------------------------------------------------------------------------

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.root / "arrays" / f"{address(key)}.npz"

    def _rows(
        self,
        paths: Iterable[Path],
        key: Mapping[str, Any],
        held: Sequence[Mapping[str, np.ndarray] | None],
    ) -> dict[bytes, tuple[float, str]]:
        """Energy and problem of every row in these files and batches, where that is for ever."""
        known: dict[bytes, tuple[float, str]] = {}
        found = (self._read(path, key, partial(_misnamed, path)) for path in sorted(paths))
        for batch in [*found, *held]:
            if batch is not None:
                use = _known(batch) & ~batch.get(_RAISED, np.False_)
                rows = (row.tobytes() for row in batch["rows"][use])
                values = zip(
                    batch["energy"][use].tolist(), batch["problem"][use].tolist(), strict=True
                )
                known.update(zip(rows, values, strict=True))
        return known

    def _read(
        self,
        path: Path,
        key: Mapping[str, Any],
        wrong: Callable[[Mapping[str, np.ndarray]], str] = lambda _: "",
    ) -> dict[str, np.ndarray] | None:
        """The arrays of a file, or None: with a warning if it is there and not what its name says.

        Args:
            wrong: in words, what is wrong with its arrays.
        """
        if path in self._memory:
            return dict(self._memory[path])
        if not is_there(path):
            return None
        try:
            arrays, header = read_columns(path)
            if header != {"format": FORMAT, "key": key}:
                raise DataError("it was written for other weights, settings or inputs.")
            if words := wrong(arrays):
                raise DataError(words)
        except DataError as error:
            if not isinstance(error, NotReadable):
                with suppress(OSError):  # else it would be found again
                    path.unlink(missing_ok=True)
            self._warn(
                f"{path.name} in the prediction store cannot be used: {error} Its rows are "
                "computed again."
            )
            return None
        return arrays

    def _keep(self, path: Path, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Write what other sessions may read, and remember what they may not."""
        kept = dict(arrays)
        raised = kept.pop(_RAISED, np.zeros(0, dtype=bool))
        if raised.any():
            self._memory[path] = dict(arrays)
            kept["problem"] = np.where(raised, "", kept["problem"])
            if not _known(kept).any():
                return
        try:
            write_columns(path, kept, {"format": FORMAT, "key": key})
        except OSError as error:
            self._memory[path] = dict(arrays)
            self._cannot_write(path, error)

    def _cannot_write(self, path: Path, error: OSError) -> None:
        first, self._remarked = not self._remarked, True
        if first:
            self._warn(
                f"could not write {path}: {error}. The session goes on from memory, and the next "
                "one computes again what is not stored. Free space, or name another folder in "
                "HARNESS_CACHE; what was stored before is intact."
            )

    @staticmethod
    def _warn(words: str) -> None:
        warnings.warn(words, StoreWarning, stacklevel=2)

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """Nobody else is within, on this path; where no lock can be made, nothing can be stored.

        The system lets a lock go when its owner dies, so that a killed session keeps nobody
        waiting.
        """
        from filelock import FileLock

        lock = FileLock(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            self._cannot_write(path, error)
        try:
            yield
        finally:
            lock.release()


class _Table:
    """Predictions of all rows, filled batch by batch in whatever order."""

    def __init__(self, crystals: Crystals, properties: Sequence[str]) -> None:
        n, atoms = len(crystals), len(crystals.numbers)
        shapes = {"forces": (atoms, 3), "stress": (n, 3, 3), "magmoms": (atoms,)}
        self._crystals = crystals
        self._energy = np.full(n, np.nan)
        self._problems: dict[int, str] = {}
        self._raised = np.zeros(n, dtype=bool)
        self._more = {name: np.full(shapes[name], np.nan) for name in properties[1:]}

    def fill(self, rows: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        self._energy[rows] = batch["energy"]
        stated = zip(rows.tolist(), batch["problem"].tolist(), strict=True)
        self._problems.update({row: problem for row, problem in stated if problem})
        self._raised[rows] = batch.get(_RAISED, np.False_)
        for name, table in self._more.items():
            table[self._of(name, rows)] = batch[name]

    def columns(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Some rows as a batch."""
        stated = [self._problems.get(row, "") for row in rows.tolist()]
        batch = _columns(self._crystals.row_hashes()[rows], self._energy[rows], stated)
        more = {name: table[self._of(name, rows)] for name, table in self._more.items()}
        return {**batch, **more, _RAISED: self._raised[rows]}

    def _of(self, name: str, rows: np.ndarray) -> np.ndarray:
        return rows if name == "stress" else self._crystals.atoms_of(rows)

    def prediction(self) -> Prediction:
        split = np.cumsum(self._crystals.n_atoms)[:-1]
        forces, magmoms = (
            np.split(self._more[name], split)[: len(self._energy)] if name in self._more else None
            for name in ("forces", "magmoms")
        )
        return Prediction(
            energy=self._energy,
            problems=dict(sorted(self._problems.items())),
            raised=frozenset(np.flatnonzero(self._raised).tolist()),
            forces=forces,
            stress=self._more.get("stress"),
            magmoms=magmoms,
        )


def _columns(
    hashes: np.ndarray, energy: np.ndarray, problems: Sequence[str]
) -> dict[str, np.ndarray]:
    return {
        "rows": hashes,
        "energy": np.asarray(energy, np.float64),
        "problem": np.array(problems, dtype=np.str_),
    }


_Shapes = dict[str, tuple[int, ...]]


def _shapes(n: int, atoms: int, properties: Sequence[str]) -> _Shapes:
    """The columns of a batch of so many rows and atoms."""
    of = {
        "energy": (n,),
        "forces": (atoms, 3),
        "stress": (n, 3, 3),
        "magmoms": (atoms,),
    }
    return {"rows": (n, 32), "problem": (n,)} | {name: of[name] for name in properties}


def _told(prediction: Prediction, hashes: np.ndarray, shapes: _Shapes) -> dict[str, np.ndarray]:
    """What a model said of some rows, as a batch.

    Raises:
        ModelError: it left something out, or gave another shape than the rows have.
    """
    stated = [prediction.problems.get(row, "") for row in range(len(hashes))]
    batch = _columns(hashes, prediction.energy, stated)
    for name in shapes.keys() - batch.keys():
        if (values := getattr(prediction, name)) is None:
            raise ModelError(f"the model was asked for {name} and gave none; correct its adapter")
        batch[name] = np.asarray(values if name == "stress" else np.concatenate(values), np.float64)
    if words := _unlike(hashes, shapes, batch):
        raise ModelError(f"the model was asked for something else: {words} Correct its adapter.")
    raised = np.zeros(len(hashes), dtype=bool)
    raised[sorted(prediction.raised)] = True
    return {**batch, _RAISED: raised}


def _known(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """(k,) bool, rows that have an energy or a reason for having none; others are asked again."""
    return np.isfinite(batch["energy"]) | (batch["problem"] != "")


def _unlike(hashes: np.ndarray, shapes: _Shapes, batch: Mapping[str, np.ndarray]) -> str:
    """In words, what makes a batch another one than that of these rows; empty if nothing does."""
    if (found := {name: array.shape for name, array in batch.items()}) != shapes:
        return f"it holds {found}, not {shapes}."
    if not np.array_equal(batch["rows"], hashes):
        return "it holds other rows."
    if (np.isfinite(batch["energy"]) & (batch["problem"] != "")).any():
        return "it holds energies of rows that are said to have none."
    return ""


def _misnamed(path: Path, batch: Mapping[str, np.ndarray]) -> str:
    """As `_unlike`, for a batch of energies whose rows its name alone tells."""
    if "rows" in batch and path.stem == address(batch["rows"].tobytes().hex()):
        return _unlike(batch["rows"], _shapes(len(batch["rows"]), 0, ("energy",)), batch)
    return "it holds other rows."


def refit_once(
    store: PredictionStore, total: np.ndarray, targets: np.ndarray, compositions: np.ndarray
) -> References:
    """The L1 refit of `models.alignment`, which takes seconds for thousands of rows, kept."""
    rows = row_digest(total, targets, compositions)
    kept = store.arrays(
        Identity(name="refit", weights_sha256=rows, settings=refit_settings()),
        {},
        lambda: {"energies": refit(total, targets, compositions).energies_ev_per_atom},
    )
    return References(name="refit", energies_ev_per_atom=kept["energies"])


def row_digest(*arrays: np.ndarray | Sequence[str]) -> str:
    """sha256 over arrays, to name the rows a stored result belongs to."""
    total = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        total.update(f"{values.dtype.str}{values.shape}".encode())
        total.update(values.tobytes())
    return total.hexdigest()
