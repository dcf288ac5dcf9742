"""Odd files for every reader: what comes back is right, or an error of the project's own.

python -m tests.fuzz --n 100000                 all readers in turn, one process
python -m tests.fuzz --n 5000 --reader cif      one of them
python -m tests.fuzz --reader cif --seed 1234 --n 1 --show

Each input is a valid file of random content with up to three faults: values that no file should
have, parts gone, doubled or exchanged, bytes flipped. One without a fault has to be read as it was
written. Whatever is read has to pass the gate again, in two seconds of processor time and with
MOST_BYTES of address space. `tests/test_fuzz.py` runs the same on fewer.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.data import Crystals, gate, load_dataset
from harness.data.columns import write_columns
from harness.data.elements import SYMBOLS
from harness.data.frames import load_dimers, load_frames
from harness.data.reference_files import read_reference
from harness.data.structure_files import read_structures
from harness.errors import HarnessError

MOST_SECONDS = 2.0
MOST_BYTES = 4_000_000_000
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 257, 2**31, 2**63, 2**64, 10**400, 0.0, -0.0, 1e-320, 1e308,
    float("nan"), float("inf"), -1e-9, 0.5, "", "x", "nan", "1e999", "Fe", "D", "X", "Qq", "é",
    "\ud800", "\0", [], [[]], {}, [None], [1, 2], {"a": 1}, [0.0, 0.0, 0.0], [[1, 0, 0]] * 3,
)  # fmt: skip
WORDS = (
    b"nan", b"inf", b"-1", b"0", b"1e999", b"999999999", b"1000000000000", b"1_0", b"?", b".", b"'",
    b'"', b"Fe", b"D", b"X", b"Qq1", b"T T F", b"\xff", b"\x00", b"[", b"{", b"loop_", b"data_b",
    b"_atom_site_label", b"REF_forces:R:3", b"Lattice=", b"0.333", b"1.5(3)", b"\xc3\xa9", b"#",
    b";",
)  # fmt: skip


class Content(NamedTuple):
    """One crystal: what is written, and what has to be read where nothing is wrong."""

    symbols: list[str]
    frac: np.ndarray
    lattice: np.ndarray


class Reader(NamedTuple):
    name: str  # of the file
    write: Callable[[random.Random, Content], object]  # JSON-able, or the text
    read: Callable[[Path], Any]


def content(rng: random.Random) -> Content:
    """Up to five atoms that are apart, in a cell that is not flat."""
    n = rng.randint(1, 5)
    symbols = sorted(rng.choice(SYMBOLS[:94]) for _ in range(n))
    lattice = np.diag([rng.uniform(3, 6) for _ in range(3)])
    lattice[1, 0], lattice[2, 0], lattice[2, 1] = (rng.uniform(-1, 1) for _ in range(3))
    places = np.array(rng.sample(list(product(range(3), repeat=3)), n)) / 3
    return Content(symbols, places.round(8), lattice.round(8))


# --- valid files ----------------------------------------------------------------------------------


def numbers(row: Sequence[float]) -> str:
    return " ".join(f"{x:.10f}" for x in row)


def poscar(rng: random.Random, of: Content) -> str:
    kinds = list(dict.fromkeys(of.symbols))
    counts = " ".join(str(of.symbols.count(kind)) for kind in kinds)
    cell = "\n".join(map(numbers, of.lattice))
    sites = "\n".join(map(numbers, of.frac))
    tail = "\n\n" + "\n".join(numbers([0, 0, 0]) for _ in of.symbols) if rng.random() < 0.3 else ""
    return f"title\n1.0\n{cell}\n{' '.join(kinds)}\n{counts}\ndirect\n{sites}\n{tail}"


def cif(rng: random.Random, of: Content) -> str:
    a, b, c = of.lattice
    lengths = [float(np.linalg.norm(v)) for v in (a, b, c)]

    def angle(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.degrees(np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))))

    cell = "".join(f"_cell_length_{n} {x:.10f}\n" for n, x in zip("abc", lengths, strict=True))
    angles = zip(("alpha", "beta", "gamma"), (angle(b, c), angle(a, c), angle(a, b)), strict=True)
    cell += "".join(f"_cell_angle_{n} {x:.10f}\n" for n, x in angles)
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n" if rng.random() < 0.5 else ""
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    loop = "loop_\n" + "".join(f"_atom_site_{column}\n" for column in columns)
    sites = "".join(
        f"{s}{k} {s} {numbers(place)} 1\n"
        for k, (s, place) in enumerate(zip(of.symbols, of.frac, strict=True))
    )
    return f"data_a\n{cell}_symmetry_space_group_name_H-M 'P 1'\n{operations}{loop}{sites}"


def extended_xyz(rng: random.Random, of: Content) -> str:
    force = rng.choice(("", "forces", "REF_forces"))
    columns, zeros = (f":{force}:R:3", " 0.0 0.01 0.0") if force else ("", "")
    key = rng.choice(("", "stress", "virial", "REF_virial"))
    stress = f' {key}="{numbers([0.001] * 9)}"' if key else ""
    head = f'Lattice="{numbers(of.lattice.reshape(-1))}" Properties=species:S:1:pos:R:3{columns}'
    sites = "\n".join(
        f"{s} {numbers(place)}{zeros}"
        for s, place in zip(of.symbols, of.frac @ of.lattice, strict=True)
    )
    return f'{len(of.symbols)}\n{head} energy=-1.5 pbc="T T T"{stress}\n{sites}\n'


def vasprun(rng: random.Random, of: Content) -> str:
    def vectors(rows: Sequence[Sequence[float]]) -> str:
        return "".join(f"<v>{numbers(row)}</v>" for row in rows)

    structure = (
        f'<structure><crystal><varray name="basis">{vectors(of.lattice)}</varray></crystal>'
        f'<varray name="positions">{vectors(of.frac)}</varray></structure>'
    )

    def named(name: str) -> str:
        return structure.replace("<structure>", f'<structure name="{name}">')

    energy = "".join(f'<i name="{n}">-1.5</i>' for n in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))
    zero = vectors([[0, 0, 0.01]] * len(of.symbols))
    step = (
        f"<calculation><scstep><energy>{energy}</energy></scstep>{structure}"
        f'<varray name="forces">{zero}</varray>'
        f'<varray name="stress">{vectors([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])}</varray>'
        f"<energy>{energy}</energy></calculation>"
    )
    kinds = list(dict.fromkeys(of.symbols))
    atoms = "".join(f"<rc><c>{s}</c><c>{1 + kinds.index(s)}</c></rc>" for s in of.symbols)
    types = "".join(
        f"<rc><c>{of.symbols.count(s)}</c><c>{s}</c><c>1.0</c><c>1.0</c><c>PAW_PBE {s} 1</c></rc>"
        for s in kinds
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n<generator>'
        '<i name="version" type="string">6.4.2</i></generator>\n'
        '<incar><i type="int" name="ISIF">3</i><i type="int" name="NSW">50</i>'
        '<i type="int" name="IBRION">2</i></incar>\n'
        '<kpoints><generation param="Gamma"><v type="int" name="divisions">4 4 4</v></generation>'
        '<varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray>'
        '</kpoints>\n<parameters><separator name="electronic"><i type="int" name="NELM">60</i>'
        '</separator><i type="int" name="NSW">50</i><i type="int" name="IBRION">2</i>'
        '<i name="EDIFFG">-0.01</i></parameters>\n'
        f"<atominfo><atoms>{len(of.symbols)}</atoms><types>{len(kinds)}</types>"
        f'<array name="atoms"><set>{atoms}</set></array>'
        f'<array name="atomtypes"><set>{types}</set></array></atominfo>\n'
        f"{named('initialpos')}\n{step * 2}\n{named('finalpos')}\n</modeling>"
    )


def xsf(rng: random.Random, of: Content) -> str:
    cell = "\n".join(map(numbers, of.lattice))
    sites = "\n".join(
        f"{1 + SYMBOLS.index(s)} {numbers(place)}"
        for s, place in zip(of.symbols, of.frac @ of.lattice, strict=True)
    )
    return f"CRYSTAL\nPRIMVEC\n{cell}\nPRIMCOORD\n{len(of.symbols)} 1\n{sites}\n"


def structure(rng: random.Random, of: Content) -> dict[str, Any]:
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": place, "properties": {}}
        for s, place in zip(of.symbols, of.frac.tolist(), strict=True)
    ]
    lattice: dict[str, Any] = {"matrix": of.lattice.tolist()}
    if rng.random() < 0.5:
        lattice["pbc"] = [True, True, True]
    return {"@module": "pymatgen.core.structure", "@class": "Structure", "lattice": lattice,
            "sites": sites}  # fmt: skip


def layout(rng: random.Random, of: Content) -> dict[str, Any]:
    others = [content(rng) for _ in range(rng.randint(0, 3))]
    rows = [[structure(rng, one), round(rng.uniform(-3, 1), 6)] for one in (of, *others)]
    table = {
        "index": rng.sample(range(132_752), len(rows)),
        "columns": ["structure", "e_form"],
        "data": rows,
    }
    return table if rng.random() < 0.7 else dict(reversed(table.items()))


def mlearn(rng: random.Random, of: Content) -> list[Any]:
    n = len(of.symbols)
    outputs = {"energy": -1.5, "forces": [[0.0, 0.0, 0.1]] * n, "virial_stress": [0.1] * 6}
    frame = {"structure": structure(rng, of), "group": "AIMD", "num_atoms": n, "outputs": outputs}
    return [frame]


def frames(rng: random.Random, of: Content) -> str:
    head = f'Lattice="{numbers(of.lattice.reshape(-1))}" Properties=species:S:1:pos:R:3:forces:R:3'
    units = "energy_unit=eV forces_unit=eV/A stress_unit=eV/A^3"
    more = f'a_id=x{rng.random()} energy=-1.5 stress="{numbers([0.01] * 9)}" pbc="T T T"'
    sites = "\n".join(
        f"{s} {numbers(place)} 0.0 0.0 0.1"
        for s, place in zip(of.symbols, of.frac @ of.lattice, strict=True)
    )
    return f"{len(of.symbols)}\n{head} {units} {more}\n{sites}\n"


def dimers(rng: random.Random, of: Content) -> dict[str, Any]:
    def curve() -> dict[str, Any]:
        r = [0.5 + k + rng.uniform(0, 0.9) for k in range(rng.randint(3, 6))]
        forces = [[[-x, 0.0, 0.0], [x, 0.0, 0.0]] for x in r]
        return {"distances": r, "energies": [1 / x for x in r], "forces": forces}

    return {"PBE": {f"{s}-{s}": curve() for s in dict.fromkeys(of.symbols)}}


def wbm(rng: random.Random, of: Content) -> list[Any]:
    row = {"material_id": "wbm-1", "structure": structure(rng, of)}
    names = ("energy", "corrected_energy", "formation_energy_per_atom",
             "corrected_formation_energy_per_atom")  # fmt: skip
    return [{**row, **{name: round(rng.uniform(-3, 1), 6) for name in names}}]


def elements(rng: random.Random, of: Content) -> dict[str, Any]:
    return {
        s: {"energy": -1.5, "correction": 0.0, "composition": {s: float(rng.randint(1, 4))}}
        for s in dict.fromkeys(of.symbols)
    }


def saved(rng: random.Random, of: Content) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        columns: dict[str, np.ndarray] = {
            "numbers": np.array([1 + SYMBOLS.index(s) for s in of.symbols], np.uint8),
            "frac_coords": of.frac,
            "lattices": of.lattice[None],
            "offsets": np.array([0, len(of.symbols)]),
        }
        if rng.random() < 0.7:  # a fault that the container does not see
            key = rng.choice(list(columns))
            kind = rng.randrange(5)
            if kind == 0:
                del columns[key]
            elif kind == 1:
                columns[key] = columns[key][:-1]
            elif kind == 2:
                columns[key] = columns[key].astype(rng.choice(("i8", "f4", "U8", "c16", "u1")))
            elif kind == 3:
                columns[key] = columns[key].reshape(-1)[None]
            else:
                columns[key] = (rng.choice((-1, 0, 1000)) * columns[key].astype(float)).astype(
                    columns[key].dtype
                )
        write_columns(path, columns, {"kind": "crystals-1"})
        return path.read_bytes()


def _one(path: Path) -> Crystals:
    return Crystals.from_files([path])


def _elements(path: Path) -> Any:
    from harness.data.references import parse

    return parse(path)


def _wbm(path: Path) -> Any:
    from harness.data import wbm as reader

    return reader.load(path)


READERS = {
    "poscar": Reader("POSCAR", poscar, _one),
    "reference-poscar": Reader("CONTCAR", poscar, read_reference),
    "cif": Reader("a.cif", cif, read_structures),
    "extxyz": Reader("a.extxyz", extended_xyz, read_reference),
    "vasprun": Reader("vasprun.xml", vasprun, read_reference),
    "xsf": Reader("a.xsf", xsf, _one),
    "json": Reader("a.json", structure, _one),
    "layout": Reader("rows.json", layout, load_dataset),
    "mlearn": Reader("Si-test.json", mlearn, lambda path: load_frames("mlearn-Si", path)),
    "frames": Reader("mpf-TP.xyz", frames, lambda path: load_frames("mpf-TP", path)),
    "dimers": Reader("dimers.json", dimers, lambda path: load_dimers("PBE", path)),
    "wbm": Reader("wbm.json", wbm, _wbm),
    "elements": Reader("elements.json", elements, _elements),
    "saved": Reader("a.npz", saved, Crystals.load),
}


# --- faults ---------------------------------------------------------------------------------------


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a tree of lists and dictionaries: what holds it, and its key there."""
    found = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        found.append((value, key))
        if isinstance(inner, dict | list):
            found.extend(_nodes(inner))
    return found


def spoil_tree(rng: random.Random, tree: Any) -> bytes:
    """A tree as JSON, one place of it spoilt."""
    tree = json.loads(json.dumps(tree))
    holder, key = rng.choice(_nodes(tree))
    kind = rng.randrange(6)
    doubled = None
    if kind <= 2:
        holder[key] = rng.choice(ODD)
    elif kind == 3:
        del holder[key]
    elif kind == 4 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), holder[key])
    elif kind == 4:
        doubled = key
    else:
        one, another = rng.choice(_nodes(tree))
        holder[key], one[another] = one[another], holder[key]  # a cycle, at times
    try:
        text = json.dumps(tree)
    except (ValueError, RecursionError):  # the cycle
        return b"[" * rng.choice((10, 500, 2000))
    if doubled is not None:
        text = text.replace(f'"{doubled}":', f'"{doubled}": 1, "{doubled}":', 1)
    return text.encode("utf-8", errors="surrogatepass")


def spoil_text(rng: random.Random, text: bytes) -> bytes:
    """Some bytes, words or lines of a text spoilt."""
    kind = rng.randrange(8)
    at = rng.randrange(len(text)) if text else 0
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
    if kind == 2:
        return text[:at] + rng.choice(WORDS) + text[at:]
    if kind in (3, 4):
        words = text.split(b" ")
        words[rng.randrange(len(words))] = rng.choice(WORDS)
        return b" ".join(words)
    lines = text.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    if kind == 5:
        del lines[one]
    elif kind == 6:
        lines.insert(two, rng.choice((b"", b" ", lines[one])))
    else:
        lines[one], lines[two] = lines[two], lines[one]
    return b"\n".join(lines)


def make(rng: random.Random, reader: Reader) -> tuple[bytes, Content | None]:
    """A file, and what it holds where nothing is wrong with it."""
    of = content(rng)
    written = reader.write(rng, of)
    n_faults = rng.choice((0, 1, 1, 1, 2, 3))
    expected = of if n_faults == 0 and not isinstance(written, bytes) else None
    if isinstance(written, dict | list):
        in_tree = n_faults > 0 and rng.random() < 0.7
        text = spoil_tree(rng, written) if in_tree else json.dumps(written).encode()
        n_faults -= in_tree
        if n_faults > 0 and in_tree and rng.random() < 0.6:
            n_faults = 0
    else:
        text = written if isinstance(written, bytes) else str(written).encode()
    for _ in range(n_faults):
        text = spoil_text(rng, text)
    if rng.random() < 0.2 and not reader.name.endswith("npz"):
        text = gzip.compress(text, 1)
        if rng.random() < 0.3 and n_faults > 0:
            text = spoil_text(rng, text)
    return text, expected


# --- outcomes -------------------------------------------------------------------------------------


def crystals_of(found: Any) -> Crystals | None:
    if isinstance(found, Crystals):
        return found
    crystals = getattr(found, "crystals", None)
    return crystals if isinstance(crystals, Crystals) else None


def import_all(reader: Reader, folder: Path) -> None:
    """Read a good file, so that no input is charged for what its reader imports."""
    rng = random.Random(0)  # noqa: S311
    written = reader.write(rng, content(rng))
    text = json.dumps(written) if isinstance(written, dict | list) else written
    path = folder / reader.name
    path.write_bytes(text if isinstance(text, bytes) else str(text).encode())
    with warnings.catch_warnings(), suppress(HarnessError):
        warnings.simplefilter("ignore")
        reader.read(path)
    path.unlink()


def outcome(reader: Reader, text: bytes, expected: Content | None, folder: Path) -> str:
    """What became of a file, read or refused.

    Raises:
        AssertionError: it is neither; whatever else a reader raises goes through.
    """
    path = folder / (reader.name + (".gz" if text.startswith(b"\x1f\x8b") else ""))
    path.write_bytes(text)
    found, refusal = None, None
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader.read(path)
    except HarnessError as error:
        refusal = str(error)
    finally:
        seconds = time.process_time() - start
        path.unlink()
    assert seconds < MOST_SECONDS, f"{seconds:.1f} s of processor time"
    if refusal is not None:
        assert expected is None, f"a file without a fault was refused: {refusal}"
        assert len(refusal) > 20, f"nothing is said: {refusal!r}"
        return "refused"
    crystals = crystals_of(found)
    if crystals is not None:
        gate.check_rows(*crystals.columns().values())
        gate.check_distances(*crystals.columns().values())
        _check_numbers(found)
        if expected is not None:
            same(crystals[0], expected)
    return "read"


def _check_numbers(found: Any) -> None:
    for name in ("target_ev_per_atom", "energy_ev_per_atom", "forces_ev_per_ang", "stress_gpa"):
        values = getattr(found, name, None)
        if isinstance(values, np.ndarray):
            assert np.isfinite(values).all(), f"{name} is not finite"


def same(crystal: Crystals, expected: Content) -> None:
    """The same crystal, whatever way round its axes lie and its atoms stand."""
    symbols = sorted(SYMBOLS[z - 1] for z in crystal.numbers.tolist())
    assert symbols == sorted(expected.symbols), f"{symbols} in place of {expected.symbols}"
    volume = abs(float(np.linalg.det(expected.lattice)))
    assert abs(crystal.volumes_ang3[0] / volume - 1) < 1e-6
    first = SYMBOLS[int(crystal.numbers[0]) - 1]  # which one of its kind, cannot be told
    starts = [p for s, p in zip(expected.symbols, expected.frac, strict=True) if s == first]
    mine = crystal.frac_coords - crystal.frac_coords[0]

    def is_there(symbol: str, place: np.ndarray) -> bool:
        steps = mine[crystal.numbers == 1 + SYMBOLS.index(symbol)] - place
        return bool((np.abs(steps - np.round(steps)).max(axis=1) < 1e-6).any())

    assert any(
        all(is_there(s, p - start) for s, p in zip(expected.symbols, expected.frac, strict=True))
        for start in starts
    ), f"atoms at {crystal.frac_coords.tolist()} in place of {expected.frac.tolist()}"


def run(names: Sequence[str], n: int, seed: int, *, show: bool = False) -> int:
    """Counts per reader on standard output; how many inputs ended in neither."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    bad = 0

    def too_long(*_: object) -> None:
        raise TimeoutError("more than 20 s")

    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARNESS_CACHE"] = folder
        os.environ.pop("HARNESS_DATA", None)
        for name in names:
            import_all(READERS[name], Path(folder))
            counts: Counter[str] = Counter()
            slowest = 0.0
            for k in range(n // len(names)):
                rng = random.Random(f"{name} {seed + k}")  # noqa: S311
                text, expected = make(rng, READERS[name])
                if show:
                    sys.stdout.buffer.write(text + b"\n")
                start = time.process_time()
                signal.alarm(20)
                try:
                    counts[outcome(READERS[name], text, expected, Path(folder))] += 1
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt):
                        raise
                    counts["neither"] += 1
                    said = f"{type(error).__name__}: {error}"
                    print(f"{name} --seed {seed + k}: {said[:300]}", flush=True)
                finally:
                    signal.alarm(0)
                slowest = max(slowest, time.process_time() - start)
                if k % 200 == 0:
                    for kept in Path(folder).rglob("*.npz"):
                        kept.unlink()
            bad += counts["neither"]
            print(
                f"{name:18s} {counts.total():7d} inputs: {counts['read']} read, "
                f"{counts['refused']} refused, {counts['neither']} neither; {slowest:.2f} s",
                flush=True,
            )
    return bad


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="inputs in all (default: 100000)")
    parser.add_argument("--reader", choices=READERS, action="append", help="only this one")
    parser.add_argument("--seed", type=int, default=0, help="of the first input of each reader")
    parser.add_argument("--show", action="store_true", help="print every input")
    options = parser.parse_args(arguments)
    names = options.reader or list(READERS)
    return 1 if run(names, max(options.n, len(names)), options.seed, show=options.show) else 0


if __name__ == "__main__":
    raise SystemExit(main())
