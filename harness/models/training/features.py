"""What a frozen network says of every atom, computed once and kept.

Addressed like predictions: by the subject's identity and the content of each crystal. A file holds
one batch; of the files already there only headers and hashes are read until their rows are asked
for, since features are large (64 float32 an atom, 165 MB for 26,000 crystals). What cannot be
written is kept in memory for the one who asked.

Layout: ``root/<16 hex digits of the model>/<16 hex digits of the batch>.npz``.

Public: FeatureStore.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.columns import NotReadable, address, read_columns, write_columns
from harness.data.crystals import Crystals
from harness.errors import DataError, Remark
from harness.models.training.heads import Backbone

FORMAT = "mlip-claims features 1"
MEMORY_BYTES = 2 * 2**30  # a table beyond this is mapped from a scratch file


class FeatureWarning(Remark):
    """A stored file was damaged, or none could be written; its rows are computed again."""


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """Per-atom features in one folder."""

    root: Path
    memory_bytes: int = MEMORY_BYTES

    def features(
        self,
        model: Backbone,
        crystals: Crystals,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Features of every row, computing only rows that are missing, batch by batch.

        Rows are found in whichever batch they were computed; those missing are planned as one
        request, so that one which was killed and asked again leaves the same bytes.

        Args:
            progress: told how many rows were just found or computed.
        Returns:
            (N, width) float32, row after row, nan for rows that were not scored, beyond
            ``memory_bytes`` a memory-mapped scratch file; and row -> why it was not scored.
        """
        key = {"format": FORMAT, "identity": model.identity.addressed()}
        folder = self.root / address(key)
        hashes = [row.tobytes() for row in crystals.row_hashes()]
        tell = progress or (lambda _: None)
        memory: dict[Path, dict[str, np.ndarray]] = {}  # what could not be written
        damaged: set[Path] = set()
        while True:
            known = _index(folder, key, damaged)
            known |= {row.tobytes(): path for path, kept in memory.items() for row in kept["rows"]}
            missing = [i for i, row in enumerate(hashes) if row not in known]
            tell(len(hashes) - len(missing))
            missing_rows = np.array(missing, np.int64)
            known |= self._compute(model, crystals, missing_rows, folder, key, memory, tell)
            found = self._gather(crystals, hashes, known, memory, key, damaged)
            if found is not None:
                return found
            tell = lambda _: None  # noqa: E731 (a damaged file: once more, already counted)

    def _compute(
        self,
        model: Backbone,
        crystals: Crystals,
        missing: np.ndarray,
        folder: Path,
        key: Mapping[str, object],
        memory: dict[Path, dict[str, np.ndarray]],
        tell: Callable[[int], None],
    ) -> dict[bytes, Path]:
        computed: dict[bytes, Path] = {}
        wanted = crystals[missing]
        for batch in model.plan(wanted) if len(missing) else []:
            part = wanted[batch]
            features = model.featurise(part)
            hashes = part.row_hashes()
            path = folder / f"{address(hashes.tobytes().hex())}.npz"
            problems = [features.problems.get(i, "") for i in range(len(part))]
            columns = {
                "rows": hashes,
                "n_atoms": part.n_atoms,
                "atoms": np.asarray(features.atoms, dtype=np.float32),
                "problem": np.array(problems, dtype=np.str_),
            }
            try:
                write_columns(path, columns, key)
            except OSError as error:
                if not memory:
                    _warn(
                        f"could not write {path}: {error}. The session goes on from memory. Free "
                        "space, or name another folder in HARNESS_CACHE; features stored before "
                        "are intact and will be found."
                    )
                memory[path] = columns
            computed |= {row.tobytes(): path for row in hashes}
            tell(len(part))
        return computed

    def _gather(
        self,
        crystals: Crystals,
        hashes: list[bytes],
        known: Mapping[bytes, Path],
        memory: Mapping[Path, dict[str, np.ndarray]],
        key: Mapping[str, object],
        damaged: set[Path],
    ) -> tuple[np.ndarray, dict[int, str]] | None:
        """The table, or None where a file turned out to be damaged."""
        by_path: dict[Path, list[int]] = {}
        for row, content in enumerate(hashes):
            by_path.setdefault(known[content], []).append(row)
        table = np.empty((0, 0), dtype=np.float32)
        problems: dict[int, str] = {}
        n_atoms = crystals.n_atoms
        for path, rows in by_path.items():
            try:
                stored = memory[path] if path in memory else _read(path, key)
                place = {row.tobytes(): i for i, row in enumerate(stored["rows"])}
                at = [place.get(hashes[row], -1) for row in rows]
                if -1 in at or not np.array_equal(stored["n_atoms"][at], n_atoms[rows]):
                    raise DataError("it holds other rows.")
                if table.size and stored["atoms"].shape[1] != table.shape[1]:
                    raise DataError(f"it holds features of shape {stored['atoms'].shape}.")
            except DataError as error:
                if path in damaged:  # what was just written is not what is read
                    raise
                _set_aside(path, error, damaged)
                return None
            if table.size == 0:
                table = self._room((len(crystals.numbers), stored["atoms"].shape[1]))
            ends = np.cumsum(stored["n_atoms"])
            starts = ends - stored["n_atoms"]
            for row, i in zip(rows, at, strict=True):
                table[crystals.atom_slice(row)] = stored["atoms"][starts[i] : ends[i]]
                if stored["problem"][i]:
                    problems[row] = str(stored["problem"][i])
        return table, dict(sorted(problems.items()))

    def _room(self, shape: tuple[int, int]) -> np.ndarray:
        if 4 * shape[0] * shape[1] <= self.memory_bytes:
            return np.empty(shape, dtype=np.float32)
        folder = self.root if os.access(self.root, os.W_OK) else None
        with tempfile.TemporaryFile(dir=folder) as file:  # the map outlives name and handle
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _read(path: Path, key: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The columns of a file.

    Raises:
        DataError: it is damaged, of another network, or its columns do not fit one another.
    """
    stored, header = read_columns(path)
    if header != key:
        raise DataError("it is of another network.")
    if stored.keys() != {"rows", "n_atoms", "atoms", "problem"}:
        raise DataError(f"it holds {', '.join(sorted(stored))}.")
    n = len(stored["rows"])
    width = stored["atoms"].shape[1:]
    shapes = {name: array.shape for name, array in stored.items()}
    fit = {
        "rows": (n, 32),
        "n_atoms": (n,),
        "atoms": (int(stored["n_atoms"].sum()), *width),
        "problem": (n,),
    }
    if len(width) != 1 or shapes != fit:
        raise DataError(f"it holds arrays of shapes {shapes}.")
    return stored


def _index(folder: Path, key: Mapping[str, object], damaged: set[Path]) -> dict[bytes, Path]:
    """Row -> the file that holds it, from each file's header and hashes alone."""
    found: dict[bytes, Path] = {}
    for path in sorted(set(folder.glob("*.npz")).difference(damaged)):
        try:
            stored, header = read_columns(path, only=("rows",))
        except DataError as error:
            _set_aside(path, error, damaged)
            continue
        if header == key and "rows" in stored:
            found.update({row.tobytes(): path for row in stored["rows"]})
    return found


def _set_aside(path: Path, error: DataError, damaged: set[Path]) -> None:
    """Have the rows of a file computed again; delete it, since they may lie in other batches."""
    damaged.add(path)
    if not isinstance(error, NotReadable):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    _warn(f"{path.name} among the features cannot be used: {error} Its rows are computed again.")


def _warn(words: str) -> None:
    warnings.warn(words, FeatureWarning, stacklevel=2)
