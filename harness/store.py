"""Predictions on disk: addressed by content, written whole or not at all, never trusted unread.

An energy is addressed by who predicted it (name, hash of the weights, settings) and by the content
of the crystal itself, not by file or row number, so any sample of any data set finds what another
session computed. Each batch is one file with checksums and the whole key in its header. A file that
is cut short, altered, or that belongs to another model is set aside with a warning and its rows are
computed again.

Layout: ``root/<16 hex digits of the model>/<16 hex digits of the batch>.npz`` and
``root/arrays/<16 hex digits of the key>.npz`` for whole results of trained subjects.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.columns import address, read_columns, write_columns
from harness.errors import DataError
from harness.execute import Execute, in_process
from harness.models.protocol import Identity, Prediction

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.protocol import Model

FORMAT = "mlip-claims predictions 1"
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
    """Energies that were computed once, for every session after."""

    def __init__(self, root: Path, execute: Execute = in_process) -> None:
        self.root = root
        self.execute = execute
        self.traffic = Traffic()

    def energies(
        self, model: Model, crystals: Crystals, progress: Progress | None = None
    ) -> Prediction:
        """Energies of every row, computing only batches of which something is missing.

        Batches are the model's own plan of exactly these crystals, and a batch is computed whole:
        what a killed session left is completed to the same bytes an undisturbed one would have
        written.
        """
        folder = self.root / address(asdict(model.identity))
        hashes = [row.tobytes() for row in crystals.row_hashes()]
        known = self._read_model(folder, model.identity)
        energy = np.full(len(crystals), np.nan)
        problems: dict[int, str] = {}
        plan = model.plan(crystals)
        incomplete = [any(hashes[row] not in known for row in rows) for rows in plan]
        computed = self.execute(
            model, crystals, [rows for rows, new in zip(plan, incomplete, strict=True) if new]
        )
        for rows, new in zip(plan, incomplete, strict=True):
            keys = [hashes[row] for row in rows]
            if new:
                batch = next(computed)
                stated = [batch.problems.get(i, "") for i in range(len(rows))]
                _write(
                    folder / f"{address(b''.join(keys).hex())}.npz",
                    {"identity": asdict(model.identity)},
                    {
                        "rows": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
                        "energy": np.asarray(batch.energy, np.float64),
                        "problem": np.array(stated, dtype=np.str_),
                    },
                )
                known.update(
                    zip(keys, zip(batch.energy.tolist(), stated, strict=True), strict=True)
                )
                self.traffic.computed += len(rows)
            else:
                self.traffic.found += len(rows)
            for row, key in zip(rows.tolist(), keys, strict=True):
                energy[row], problem = known[key]
                if problem:
                    problems[row] = problem
            if progress is not None:
                progress(len(rows))
        return Prediction(energy=energy, problems=problems)

    def arrays(
        self,
        identity: Identity,
        inputs: Mapping[str, str],
        compute: Callable[[], Mapping[str, np.ndarray]],
    ) -> dict[str, np.ndarray]:
        """Arrays of a trained subject, computed once for this identity and these inputs.

        ``inputs`` names what else the result depends on, such as the hash of the rows predicted.
        """
        key = {"identity": asdict(identity), "inputs": dict(inputs)}
        path = self.root / "arrays" / f"{address(key)}.npz"
        if path.exists() and (stored := _read(path, key)) is not None:
            self.traffic.found += 1
            return stored
        result = {name: np.asarray(array) for name, array in compute().items()}
        _write(path, key, result)
        self.traffic.computed += 1
        return result

    def _read_model(self, folder: Path, identity: Identity) -> dict[bytes, tuple[float, str]]:
        known: dict[bytes, tuple[float, str]] = {}
        for path in sorted(folder.glob("*.npz")):
            if (arrays := _read(path, {"identity": asdict(identity)})) is not None:
                keys = (row.tobytes() for row in arrays["rows"])
                values = zip(arrays["energy"].tolist(), arrays["problem"].tolist(), strict=True)
                known.update(zip(keys, values, strict=True))
        return known


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
        raise DataError(
            f"could not write {path}: {error}. Free space, or name another folder in "
            "HARNESS_CACHE; what was stored before is intact."
        ) from error


def _read(path: Path, key: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of a file, or None with a warning if it is not what its name says."""
    try:
        arrays, header = read_columns(path)
        if header != {"format": FORMAT, "key": key}:
            raise DataError("it was written for other weights, settings or inputs")
    except DataError as error:
        warnings.warn(
            f"{path.name} in the prediction store cannot be used: {error} Its rows are computed "
            "again.",
            StoreWarning,
            stacklevel=3,
        )
        return None
    return arrays
