"""What is computed: real rows, cells of a chosen size, files of the official layout."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.data import Crystals, Dataset, load_dataset
from harness.data.elements import SYMBOLS

RATTLE_ANG = 0.02  # enough that no two atoms are alike and no row is like another
FOLD_0_ROWS = 26_551
OFFICIAL_ROWS = 132_752


def largest_set() -> Dataset:
    """The largest data set at hand that has crystals."""
    dataset = load_dataset("auto")
    return load_dataset("thermochemistry") if dataset.name == "embedded" else dataset


def real_rows(n: int, *, seed: int = 0) -> tuple[Crystals, str]:
    """n rows of the largest set at hand, without repetition while it lasts; and its name."""
    dataset = largest_set()
    crystals = dataset.require_crystals()
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(len(crystals)) for _ in range(-(-n // len(crystals)))]
    return crystals[np.concatenate(rounds)[:n]], dataset.name


def rattled(crystals: Crystals, *, seed: int = 0, std_ang: float = RATTLE_ANG) -> Crystals:
    """The same cells, every atom moved by its own random step, so that no symmetry is left."""
    steps = np.random.default_rng(seed).normal(scale=std_ang, size=crystals.frac_coords.shape)
    inverses = np.linalg.inv(crystals.lattices)[crystals.row_of_atom]
    return Crystals(
        numbers=crystals.numbers,
        frac_coords=crystals.frac_coords + np.einsum("ai,aij->aj", steps, inverses),
        lattices=crystals.lattices,
        offsets=crystals.offsets,
    )


def fold_0_sized(n: int = FOLD_0_ROWS, *, seed: int = 0) -> tuple[Crystals, str]:
    """As many rows as fold 0 tests, drawn with repetition, freshly rattled: nothing repeats."""
    dataset = largest_set()
    crystals = dataset.require_crystals()
    rows = np.random.default_rng(seed).integers(len(crystals), size=n)
    return rattled(crystals[rows], seed=seed + 1), f"{dataset.name}, with repetition, rattled"


KINDS = 4  # of the smallest cells that larger ones are made of, the same for every size


def cells_of(n_atoms: int, n_cells: int, *, seed: int = 0) -> Crystals:
    """Supercells of n_atoms made of some of the smallest real cells at hand, each kind in turn.

    n_atoms has to be a multiple of the smallest cell's (1 in the Materials Project's rows).
    """
    crystals = largest_set().require_crystals()
    smallest = np.flatnonzero(crystals.n_atoms == crystals.n_atoms.min())
    copies, rest = divmod(n_atoms, int(crystals.n_atoms.min()))
    if rest:
        raise ValueError(f"{n_atoms} atoms are no multiple of {crystals.n_atoms.min()}")
    kinds = np.random.default_rng(seed).permutation(smallest)[:KINDS]
    rows = np.resize(kinds, n_cells)
    cells = [_supercell(crystals[int(row)], copies) for row in rows]
    return Crystals.concatenate(cells)


def _supercell(cell: Crystals, copies: int) -> Crystals:
    """The cell repeated so often, by whole numbers that leave it as near a cube as they can."""
    lattice = cell.lattices[0]
    lengths = np.linalg.norm(lattice, axis=1)
    triples = [
        (a, b, copies // (a * b))
        for a in range(1, copies + 1)
        if copies % a == 0
        for b in range(1, copies // a + 1)
        if copies // a % b == 0
    ]
    repeats = np.array(min(triples, key=lambda t: np.ptp(np.array(t) * lengths)))
    shifts = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), axis=-1).reshape(-1, 3)
    coords = (shifts[:, None] + cell.frac_coords[None]) / repeats
    n = copies * len(cell.numbers)
    return Crystals(
        numbers=np.tile(cell.numbers, copies),
        frac_coords=coords.reshape(-1, 3),
        lattices=(lattice * repeats[:, None])[None],
        offsets=np.array([0, n], dtype=np.int64),
    )


# --- files of the official layout -----------------------------------------------------------------


def write_official_layout(path: Path, n_rows: int, *, seed: int = 0) -> float:
    """n_rows in matbench's own layout, gzip-compressed; returns the MB of text.

    Rows are drawn from the largest set at hand, again and again where it has fewer, and written as
    pymatgen of 2019 did (Cartesian coordinates, labels and cell parameters too), so that a row has
    as much text as in the published file.
    """
    dataset = largest_set()
    crystals = dataset.require_crystals()
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(len(crystals)) for _ in range(-(-n_rows // len(crystals)))]
    drawn = np.concatenate(rounds)[:n_rows]
    texts = dict(_row_texts(crystals, dataset.target_ev_per_atom, np.unique(drawn)))
    written = 0
    with gzip.open(path, "wb", compresslevel=1) as stream:
        head = f'{{"index":{json.dumps(list(range(n_rows)))},"columns":["structure","e_form"],'
        written += stream.write(head.encode() + b'"data":[')
        for i, row in enumerate(drawn.tolist()):
            written += stream.write((b"," if i else b"") + texts[row])
        written += stream.write(b"]}")
    return written / 1e6


def _row_texts(
    crystals: Crystals, target: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[int, bytes]]:
    for row in rows.tolist():
        one = crystals[row]
        matrix = one.lattices[0]
        a, b, c = lengths = np.linalg.norm(matrix, axis=1)
        cosines = (
            matrix[1] @ matrix[2] / b / c,
            matrix[0] @ matrix[2] / a / c,
            matrix[0] @ matrix[1] / a / b,
        )
        angles = np.degrees(np.arccos(cosines))
        lattice = {"matrix": matrix.tolist()}
        lattice |= dict(zip("abc", lengths.tolist(), strict=True))
        lattice |= dict(zip(("alpha", "beta", "gamma"), angles.tolist(), strict=True))
        lattice["volume"] = float(one.volumes_ang3[0])
        sites = [
            {
                "species": [{"element": symbol, "occu": 1}],
                "abc": abc,
                "xyz": xyz,
                "label": symbol,
            }
            for symbol, abc, xyz in zip(
                [SYMBOLS[z - 1] for z in one.numbers.tolist()],
                one.frac_coords.tolist(),
                (one.frac_coords @ matrix).tolist(),
                strict=True,
            )
        ]
        structure = {
            "@module": "pymatgen.core.structure",
            "@class": "Structure",
            "charge": None,
            "lattice": lattice,
            "sites": sites,
        }
        text = json.dumps([structure, float(target[row])], separators=(",", ":"))
        yield row, text.encode()
