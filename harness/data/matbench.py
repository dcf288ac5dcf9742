"""matbench v0.1 mp_e_form: formation energies of Materials Project crystals, with structures.

Source: ml.materialsproject.org, described by matminer and matbench (A. Dunn et al., npj Comput.
Mater. 6, 138 (2020)); retrieved from the Materials Project on 2 April 2019.  Licence: Materials
Project data, CC-BY-4.0; matbench, MIT.  Theory: PBE and PBE+U with the corrections of its time.
Sign: negative is bound against the elements. Unit: eV/atom.

Any file in the official layout is read, whole or a part. Its rows are official where that is known:
the file is one whose sha256 stands below, or every row has the formation energy and the composition
of the official row that its `index` names. To compare, the targets or the published file have to be
at hand. Any other file is one of the user's own: its name says so, and it has no official folds.

A file is converted once. The columns are kept in the cache under the sha256 of the file, so that a
changed file is another set and an unchanged one opens in about a second.

Public: load, name_of, PUBLISHED_SHA256, SUBSET_SHA256, OWN.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.conversions import converted
from harness.data.crystals import Crystals
from harness.data.dataset import Dataset, cross_fitted
from harness.data.elements import reduced_formulas
from harness.data.folds import N_FOLDS, N_OFFICIAL, mbid
from harness.errors import DataError, NotAvailable
from harness.files import sha256_of

NAME = "matbench_mp_e_form"
FILE_NAME = f"{NAME}.json.gz"
LICENCE = "CC-BY-4.0 (Materials Project), MIT (matbench)"

# of matbench_mp_e_form.json.gz, as matminer's dataset_metadata.json gives it
PUBLISHED_SHA256 = "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f"

# of the part of it with structures of today's Materials Project, which docs/data.md describes
SUBSET_SHA256 = "cd56601a703edeb5ca6c01f389a0be5ed19e4309d088520ba8504f0f44dc63b4"

OWN = "own file"  # what the name of a user's own data begins with
_SPLIT_SALT = "own"
# The official rows lie between -4.61 and 2.50 eV/atom, and nothing known is bound by more.
_LOWEST, _HIGHEST = -6.0, 10.0  # eV/atom

_FILE_KIND = "matbench-2"  # 2: rows went through the gate


def load(path: Path) -> Dataset:
    """All rows of a file in the official layout, through the cache.

    Official rows are "matbench_mp_e_form" where all 132,752 are there, else "matbench_mp_e_form
    (subset)", and have the official folds. Others are "own file NAME", cross-fitted in five splits
    where there are formulas enough, and their ``source`` says in what they differ.

    Raises:
        DataError: the file is missing or damaged, a row cannot be used, a target is no energy per
            atom, or some rows are official and others are not; nothing wrong is cached then.
    """
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. Correct the path, or run: python -m harness doctor"
        )
    columns, sha256 = converted(path, _FILE_KIND, lambda: _columns(path))
    index, target = columns.pop("index"), columns.pop("target")
    crystals = Crystals(**columns)
    compositions = crystals.compositions()
    ids = np.array([mbid(number) for number in index.tolist()])
    other = None
    if _known_by_hash(sha256) is None:
        other = _why_not_official(path, index, target, compositions)
    is_subset = len(index) < N_OFFICIAL
    if other is None:
        origin = "as published" if sha256 == PUBLISHED_SHA256 else "not the published file"
        return Dataset(
            name=f"{NAME} (subset)" if is_subset else NAME,
            ids=ids,
            target_ev_per_atom=target,
            crystals=crystals,
            compositions=compositions,
            inputs={path.name: sha256},
            source=f"matbench v0.1 mp_e_form, {path.name} ({origin})",
            licence=LICENCE,
            is_subset=is_subset,
            n_official=N_OFFICIAL,
            index=index,
        )
    if (odd := np.flatnonzero((target < _LOWEST) | (target > _HIGHEST))).size:
        row = int(odd[0])
        raise DataError(
            f"{path}: e_form of row {row} ({crystals[row].reduced_formulas()[0]}) is "
            f"{target[row]:.4g} eV/atom ({odd.size} rows are below {_LOWEST:g} or above "
            f"{_HIGHEST:g}), and no crystal's formation energy is. Give it in eV per atom, not per "
            "cell or in another unit."
        )
    splits = cross_fitted(compositions, _SPLIT_SALT, N_FOLDS)
    return Dataset(
        name=f"{OWN} {path.name}",
        ids=np.array([f"row {number}" for number in index.tolist()]),
        target_ev_per_atom=target,
        crystals=crystals,
        compositions=compositions,
        inputs={path.name: sha256},
        source=f"{path.name}, a file of your own in matbench's layout: {other}",
        licence="not stated",
        is_subset=False,
        n_official=len(index),
        fold_splits=(splits,) if all(len(split.test) for split in splits) else (),
    )


def name_of(path: Path) -> tuple[str, str]:
    """What load calls the set in a file, and its source; a known file is not read for that."""
    if known := _known_by_hash(sha256_of(path)):
        return known, f"matbench v0.1 mp_e_form, {path.name}"
    dataset = load(path)
    return dataset.name, dataset.source


def _known_by_hash(sha256: str) -> str | None:
    return {PUBLISHED_SHA256: NAME, SUBSET_SHA256: f"{NAME} (subset)"}.get(sha256)


def _why_not_official(
    path: Path, index: np.ndarray, target: np.ndarray, compositions: np.ndarray
) -> str | None:
    """In what rows differ from the official ones of their numbers; None where they do not.

    Raises:
        DataError: most rows are official and some are not: the file was changed.
    """
    official = _official_rows()
    if official is None:
        return (
            "whether its rows are official cannot be told without the official targets or the "
            f"published file (python -m harness fetch {NAME})"
        )
    row_of = np.full(N_OFFICIAL, -1)
    row_of[official.index] = np.arange(len(official))
    at = row_of[index]
    theirs = official.compositions[at]
    same = (at >= 0) & (target == official.target_ev_per_atom[at])
    same &= (
        compositions * theirs.sum(axis=1)[:, None] == theirs * compositions.sum(axis=1)[:, None]
    ).all(axis=1)
    if same.all():
        return None
    row = int(np.flatnonzero(~same)[0])
    if at[row] < 0:
        what = f"row {row} has index {index[row]}, which the targets at hand do not have"
    else:
        formulas = reduced_formulas(np.stack([compositions[row], theirs[row]]))
        what = (
            f"row {row} is {formulas[0]} with {target[row]:.6g} eV/atom, and the official row "
            f"{index[row]} is {formulas[1]} with {official.target_ev_per_atom[at[row]]:.6g}"
        )
    n_other = int(np.count_nonzero(~same))
    if 2 * n_other < len(same):
        raise DataError(
            f"{path}: {n_other} of {len(same)} rows are not the official ones that index says "
            f"({what}). Restore them, or remove them from index and data."
        )
    return f"{n_other} of {len(same)} rows are not official: {what}"


def _official_rows() -> Dataset | None:
    """Targets and compositions of official rows, from the smallest file at hand that has them."""
    from harness.data import official_file, targets

    try:
        return targets.load()
    except NotAvailable:
        path = official_file()
    return load(path) if path is not None and sha256_of(path) == PUBLISHED_SHA256 else None


def _columns(path: Path) -> dict[str, np.ndarray]:
    from harness.data.official_layout import parse

    raw = parse(path)
    return {"index": raw.index, "target": raw.target, **raw.crystals.columns()}
