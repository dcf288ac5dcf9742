"""Predictions on disk: addressed by content, written whole or not at all, never trusted unread.

An energy is addressed by who predicted it (name, hash of the weights, settings) and by the content
of the crystal itself, not by file or row number, so any sample of any data set finds what another
session computed. Each batch is one file with checksums and the whole key in its header. A file that
is cut short, altered, or that belongs to another model is set aside with a warning and its rows are
computed again.

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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.columns import address, read_columns, write_columns
from harness.errors import ConfigError, DataError, ModelError
from harness.execute import Execute, in_process
from harness.models.alignment import References, refit, refit_settings
from harness.models.protocol import Identity, Prediction
from harness.models.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model

FORMAT = "mlip-claims predictions 1"
OPTIONAL = ("forces", "stress", "magmoms")  # what can be asked for beside the energy
Progress = Callable[[int], None]  # told the number of rows just finished, stored ones included
MakeProgress = Callable[[str, int], Progress]  # what is done and how much of it -> Progress


class StoreWarning(UserWarning):
    """A stored file was damaged or stale; its rows are computed again."""


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
            DataError: a file could not be written.
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
        hashes = crystals.row_hashes()
        plan = model.plan(crystals)
        paths = [folder / f"{address(hashes[rows].tobytes().hex())}.npz" for rows in plan]
        held = [
            _batch(path, key, hashes[rows], int(crystals.n_atoms[rows].sum()), properties)
            for path, rows in zip(paths, plan, strict=True)
        ]
        if borrow and any(batch is None for batch in held):
            elsewhere = self._rows(set(folder.glob("*.npz")) - set(paths), key, held)
            for i, rows in enumerate(plan):
                wanted = [row.tobytes() for row in hashes[rows]]
                if held[i] is None and all(row in elsewhere for row in wanted):
                    energy, problem = zip(*(elsewhere[row] for row in wanted), strict=True)
                    held[i] = borrowed = _columns(hashes[rows], np.array(energy), problem)
                    _write(paths[i], key, borrowed)
        missing = [rows for rows, batch in zip(plan, held, strict=True) if batch is None]
        computed = self.execute(model, crystals, missing, properties)

        result = _Table(crystals, properties)
        for i, rows in enumerate(plan):
            batch = held[i]
            if batch is None:
                prediction = next(computed)
                stated = [prediction.problems.get(row, "") for row in range(len(rows))]
                batch = _columns(hashes[rows], prediction.energy, stated)
                for name in properties[1:]:
                    batch[name] = _joined(getattr(prediction, name), name)
                _write(paths[i], key, batch)
                self.traffic.computed += len(rows)
            else:
                self.traffic.found += len(rows)
            result.fill(rows, batch)
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
        if path.exists() and (stored := _read(path, key)) is not None:
            self.traffic.found += 1
            return stored
        result = {name: np.asarray(array) for name, array in compute().items()}
        _write(path, key, result)
        self.traffic.computed += 1
        return result

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
        with _alone(self.root / "locks" / f"{name}.lock", unless=self._path(key).exists):
            result = self.arrays(identity, inputs, lambda: train(checkpoints))
            checkpoints.discard()
        return result

    def _path(self, key: Mapping[str, Any]) -> Path:
        return self.root / "arrays" / f"{address(key)}.npz"

    def _rows(
        self,
        paths: Iterable[Path],
        key: Mapping[str, Any],
        held: Sequence[Mapping[str, np.ndarray] | None],
    ) -> dict[bytes, tuple[float, str]]:
        """Energy and problem of every row in these files and batches."""
        known: dict[bytes, tuple[float, str]] = {}
        for batch in [*(_batch(path, key) for path in sorted(paths)), *held]:
            if batch is not None:
                rows = (row.tobytes() for row in batch["rows"])
                values = zip(batch["energy"].tolist(), batch["problem"].tolist(), strict=True)
                known.update(zip(rows, values, strict=True))
        return known


class _Table:
    """Predictions of all rows, filled batch by batch in whatever order."""

    def __init__(self, crystals: Crystals, properties: Sequence[str]) -> None:
        n, atoms = len(crystals), len(crystals.numbers)
        shapes = {"forces": (atoms, 3), "stress": (n, 3, 3), "magmoms": (atoms,)}
        self._crystals = crystals
        self._energy = np.full(n, np.nan)
        self._problems: dict[int, str] = {}
        self._more = {name: np.full(shapes[name], np.nan) for name in properties[1:]}

    def fill(self, rows: np.ndarray, batch: Mapping[str, np.ndarray]) -> None:
        self._energy[rows] = batch["energy"]
        stated = zip(rows.tolist(), batch["problem"].tolist(), strict=True)
        self._problems.update({row: problem for row, problem in stated if problem})
        for name, table in self._more.items():
            where = rows if name == "stress" else self._crystals.atoms_of(rows)
            table[where] = batch[name]

    def prediction(self) -> Prediction:
        split = np.cumsum(self._crystals.n_atoms)[:-1]
        forces, magmoms = (
            np.split(self._more[name], split)[: len(self._energy)] if name in self._more else None
            for name in ("forces", "magmoms")
        )
        return Prediction(
            energy=self._energy,
            problems=dict(sorted(self._problems.items())),
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


def _joined(values: Any, name: str) -> np.ndarray:
    """One array of all rows or all atoms; a model that left out what was asked is at fault."""
    if values is None:
        raise ModelError(f"the model was asked for {name} and gave none; correct its adapter")
    return np.asarray(values if name == "stress" else np.concatenate(values), np.float64)


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


@contextmanager
def _alone(path: Path, *, unless: Callable[[], bool]) -> Iterator[None]:
    """Nobody else is within, on this path; nobody is waited for where ``unless`` holds.

    The system lets a lock go when its owner dies, so that a killed session keeps nobody waiting.
    """
    from filelock import FileLock

    if unless():
        yield
        return
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        yield
    finally:
        lock.release()


def row_digest(*arrays: np.ndarray | Sequence[str]) -> str:
    """sha256 over arrays, to name the rows a stored result belongs to."""
    total = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        total.update(f"{values.dtype.str}{values.shape}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _write(path: Path, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    try:
        write_columns(path, arrays, {"format": FORMAT, "key": key})
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(
        f"could not write {path}: {error}. Free space, or name another folder in HARNESS_CACHE; "
        "what was stored before is intact."
    )


def _batch(
    path: Path,
    key: Mapping[str, Any],
    hashes: np.ndarray | None = None,
    atoms: int = 0,
    properties: Sequence[str] = ("energy",),
) -> dict[str, np.ndarray] | None:
    """The batch of a file, if it is there and of these rows; else None, with a warning if it is.

    Args:
        hashes: of the rows it must hold, in this order; None: whichever it holds.
        atoms: how many they have in all.
        properties: what it must hold of them, and nothing else.
    """

    def check(arrays: Mapping[str, np.ndarray]) -> None:
        if set(arrays) != {"rows", "problem", *properties}:
            raise DataError(f"it holds {', '.join(sorted(arrays))}, not what was asked for")
        n = len(arrays["rows"]) if hashes is None else len(hashes)
        if hashes is not None and not np.array_equal(arrays["rows"], hashes):
            raise DataError("it holds other rows")
        shapes = {
            "rows": (n, *arrays["rows"].shape[1:]),
            "energy": (n,),
            "problem": (n,),
            "forces": (atoms, 3),
            "stress": (n, 3, 3),
            "magmoms": (atoms,),
        }
        for name, array in arrays.items():
            if array.shape != shapes[name]:
                raise DataError(f"its {name} have shape {array.shape}, not {shapes[name]}")

    return _read(path, key, check) if path.exists() else None


def _read(
    path: Path,
    key: Mapping[str, Any],
    check: Callable[[Mapping[str, np.ndarray]], None] = lambda _: None,
) -> dict[str, np.ndarray] | None:
    """The arrays of a file, or None with a warning if it is not what its name says."""
    try:
        arrays, header = read_columns(path)
        if header != {"format": FORMAT, "key": key}:
            raise DataError("it was written for other weights, settings or inputs")
        check(arrays)
    except DataError as error:
        warnings.warn(
            f"{path.name} in the prediction store cannot be used: {error} Its rows are computed "
            "again.",
            StoreWarning,
            stacklevel=3,
        )
        return None
    return arrays
