"""What a frozen network says of every atom, computed once and kept.

Addressed like predictions: by the subject's identity and the content of each crystal. A file holds
one batch; of the files already there only headers are read until their rows are asked for, since
features are large (64 float32 an atom, 165 MB for 26,000 crystals).

Layout: ``root/<16 hex digits of the model>/<16 hex digits of the batch>.npz``.

Public: FeatureStore.
"""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.columns import address, read_columns, write_columns
from harness.data.crystals import Crystals
from harness.errors import DataError
from harness.models.training.heads import Backbone

FORMAT = "mlip-claims features 1"
MEMORY_BYTES = 2 * 2**30  # a table beyond this is mapped from a scratch file


class FeatureWarning(UserWarning):
    """A stored file was damaged; its rows are computed again."""


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
        Raises:
            DataError: a file could not be written; what was there before is intact.
        """
        key = {"format": FORMAT, "identity": model.identity.addressed()}
        folder = self.root / address(key)
        hashes = [row.tobytes() for row in crystals.row_hashes()]
        tell = progress or (lambda _: None)
        while True:
            known = _index(folder, key)
            missing = [i for i, row in enumerate(hashes) if row not in known]
            tell(len(hashes) - len(missing))
            known |= self._compute(model, crystals, np.array(missing, np.int64), folder, key, tell)
            found = self._gather(crystals, hashes, known, key)
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
        tell: Callable[[int], None],
    ) -> dict[bytes, Path]:
        written: dict[bytes, Path] = {}
        wanted = crystals[missing]
        for batch in model.plan(wanted) if len(missing) else []:
            part = wanted[batch]
            features = model.featurise(part)
            hashes = part.row_hashes()
            path = folder / f"{address(hashes.tobytes().hex())}.npz"
            problems = [features.problems.get(i, "") for i in range(len(part))]
            try:
                write_columns(
                    path,
                    {
                        "rows": hashes,
                        "n_atoms": part.n_atoms,
                        "atoms": np.asarray(features.atoms, dtype=np.float32),
                        "problem": np.array(problems, dtype=np.str_),
                    },
                    key,
                )
            except OSError as error:
                raise DataError(
                    f"could not write {path}: {error}. Free space, or name another folder in "
                    "HARNESS_CACHE; features stored before are intact and will be found."
                ) from error
            written |= {row.tobytes(): path for row in hashes}
            tell(len(part))
        return written

    def _gather(
        self,
        crystals: Crystals,
        hashes: list[bytes],
        known: Mapping[bytes, Path],
        key: Mapping[str, object],
    ) -> tuple[np.ndarray, dict[int, str]] | None:
        """The table, or None where a file turned out to be damaged and was deleted."""
        by_path: dict[Path, list[int]] = {}
        for row, content in enumerate(hashes):
            by_path.setdefault(known[content], []).append(row)
        table = np.empty((0, 0), dtype=np.float32)
        problems: dict[int, str] = {}
        for path, rows in by_path.items():
            try:
                stored, header = read_columns(path)
                if header != key:
                    raise DataError("it is of another network.")
            except DataError as error:
                path.unlink(missing_ok=True)
                warnings.warn(
                    f"{path.name} among the features cannot be used: {error} Its rows are "
                    "computed again.",
                    FeatureWarning,
                    stacklevel=3,
                )
                return None
            if table.size == 0:
                table = self._room((len(crystals.numbers), stored["atoms"].shape[1]))
            place = {row.tobytes(): i for i, row in enumerate(stored["rows"])}
            ends = np.cumsum(stored["n_atoms"])
            starts = ends - stored["n_atoms"]
            for row in rows:
                i = place[hashes[row]]
                table[crystals.atom_slice(row)] = stored["atoms"][starts[i] : ends[i]]
                if stored["problem"][i]:
                    problems[row] = str(stored["problem"][i])
        return table, dict(sorted(problems.items()))

    def _room(self, shape: tuple[int, int]) -> np.ndarray:
        if 4 * shape[0] * shape[1] <= self.memory_bytes:
            return np.empty(shape, dtype=np.float32)
        with tempfile.TemporaryFile(dir=self.root) as file:  # the map outlives name and handle
            return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)


def _index(folder: Path, key: Mapping[str, object]) -> dict[bytes, Path]:
    """Row -> the file that holds it, from each file's header and hashes alone."""
    found: dict[bytes, Path] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                if json.loads(archive["header_json"].tobytes()) != key:
                    continue
                rows = archive["rows"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue  # damaged: its rows count as missing, and are written over
        found.update({row.tobytes(): path for row in rows})
    return found
