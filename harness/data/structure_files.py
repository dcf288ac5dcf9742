"""Crystals from single files of the usual formats, whole or not at all.

The readers behind it are pymatgen's and ASE's. They leave out what they do not understand (a site,
a data block, frames after a blank line) and make up what is missing (element symbols), so that each
file is counted here first: what it announces has to be what comes back.

Public: read_structures, StructureFile, FORMATS.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data import gate, texts
from harness.data.crystals import Crystals
from harness.data.elements import NUMBERS, SYMBOLS
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import DataError, HarnessError

if TYPE_CHECKING:
    from pymatgen.core import Structure

MOST_SYMMETRY_OPERATIONS = 192  # of a space group in any of its cells
MOST_POSITIONS = 3000  # sites times operations; pymatgen compares each with every other
_ASYMMETRIC_GPA = 1e-3  # of a stress tensor, or a thousandth of its largest component
_PACKED = re.compile(r"\.(bz2|xz|lzma|zst|z|zip|tar|tgz)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, eq=False)
class StructureFile:
    """n crystals of one file, and what it says of their forces and stress, by the file's own keys.

    Every key that holds such numbers is here, whatever prefix it has (`REF_forces`, `dft_virial`).
    """

    crystals: Crystals  # n rows
    forces_ev_per_ang: Sequence[Mapping[str, np.ndarray]]  # n times key -> (atoms, 3)
    stress_gpa: Sequence[Mapping[str, np.ndarray]]  # n times key -> (3, 3), tension positive
    not_read: Sequence[tuple[str, ...]] = field(default=())  # n; keys whose shape says nothing
    remarks: tuple[str, ...] = field(default=())  # of the reader

    def __post_init__(self) -> None:
        if not len(self.forces_ev_per_ang) == len(self.stress_gpa) == len(self.crystals):
            raise DataError("forces and stress need as many entries as there are crystals")


def read_structures(path: Path) -> StructureFile:
    """Every crystal in a file, read as its name says.

    Args:
        path: one of FORMATS, else anything that pymatgen knows by its name (XSF, JSON, ...); `.gz`
            may follow.
    Raises:
        DataError: it is missing, cannot be read, is read in part only, is larger than
            HARNESS_MOST_MB allows, or a crystal does not pass harness.data.gate; the message names
            the file.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist, or is no file. Correct the path.")
    readers = [read for name, read in FORMATS.items() if re.search(name, path.name, re.IGNORECASE)]
    try:
        found = (readers or [_others])[0](path)
    except DataError as error:
        text = str(error)
        if text.startswith((path.name, str(path))):
            raise
        raise DataError(f"{path.name}: {text}") from error
    except HarnessError:
        raise
    except Exception as error:  # every reader raises its own kind
        raise DataError(
            f"{path} cannot be read as a structure ({type(error).__name__}: {_short(str(error))}). "
            "Check that it is whole, and that its name tells its format (.cif, POSCAR, .extxyz)."
        ) from error
    if not len(found.crystals):
        raise DataError(f"{path} holds no crystal. Give the file of a finished calculation.")
    return found


def _without_forces(crystals: Crystals, remarks: tuple[str, ...] = ()) -> StructureFile:
    nothing: list[dict[str, np.ndarray]] = [{} for _ in range(len(crystals))]
    return StructureFile(
        crystals=crystals, forces_ev_per_ang=nothing, stress_gpa=nothing, remarks=remarks
    )


def _short(text: str) -> str:
    return " ".join(text.split())[:300] or "no message"


def _text(path: Path) -> str:
    """Comments of old files are in other encodings, and say nothing that is read."""
    return texts.whole(path).decode("utf-8", errors="replace")


# --- POSCAR ---------------------------------------------------------------------------------------


def _poscar(path: Path) -> StructureFile:
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    text = _text(path)
    _check_poscar_counts(text)
    with warnings.catch_warnings():
        # Without element symbols pymatgen makes some up (H, He, ...) and warns.
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            poscar = Poscar.from_str(text, read_velocities=False)
        except BadPoscarWarning as error:
            raise DataError(
                f"{error} Write the elements' symbols in the line above their counts."
            ) from error
    return _without_forces(Crystals.from_structures([poscar.structure], name=lambda _: path.name))


def _check_poscar_counts(text: str) -> None:
    """As many positions as the counts say, before the reader makes room for them."""
    lines = text.split("\n")
    at = 5
    n_symbols = 0
    while at < len(lines) and not _whole_numbers(lines[at]):
        n_symbols += len(lines[at].split())
        at += 1
        if at > 20:
            break
    counts: list[int] = []
    while at < len(lines) and (row := _whole_numbers(lines[at])):
        counts += row
        at += 1
        if len(counts) >= n_symbols:
            break
    if not counts or min(counts) < 1:
        raise DataError(
            f"the counts of its elements are {counts}. Line 7 (line 6 without symbols) gives one "
            "whole number above 0 for each element."
        )
    if n_symbols not in (0, len(counts)):
        raise DataError(f"{n_symbols} element symbols for {len(counts)} counts. Correct one.")
    if at < len(lines) and lines[at].strip()[:1] in tuple("sS"):
        at += 1
    positions = 0
    for line in lines[at + 1 :]:
        if not line.strip() or not _starts_with_three_numbers(line):
            break
        positions += 1
    if positions != sum(counts):
        raise DataError(
            f"{sum(counts)} atoms are announced and {positions} positions follow. Restore the "
            "file, or correct the counts; what is not a position stands below a blank line."
        )


def _whole_numbers(line: str) -> list[int]:
    words = line.split()
    return [int(word) for word in words] if all(map(_WHOLE.fullmatch, words)) else []


_WHOLE = re.compile(r"[+-]?\d{1,9}")


def _starts_with_three_numbers(line: str) -> bool:
    words = line.split()[:3]
    try:
        return len([float(word) for word in words]) == 3
    except ValueError:
        return False


# --- CIF ------------------------------------------------------------------------------------------

_OPERATIONS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop_magn_operation_xyz",
    "_space_group_symop.magn_operation_xyz",
)


def _cif(path: Path) -> StructureFile:
    bodies = re.split(r"^\s*data_", _text(path), flags=re.MULTILINE)[1:]
    with_atoms = [
        body for body in bodies if re.search(r"^\s*_atom_site_", body, re.MULTILINE | re.IGNORECASE)
    ]
    structures, names, remarks = [], [], set[str]()
    for body in with_atoms:  # one at a time: two may have one name, and each has its own formula
        header = (body.split(maxsplit=1) or [""])[0]
        name = path.name if len(with_atoms) == 1 else f"{path.name}, block {header}"
        structure, said = _block(body, name)
        structures.append(structure)
        names.append(name)
        remarks |= said
    crystals = Crystals.from_structures(structures, name=names.__getitem__)
    return _without_forces(crystals, tuple(sorted(remarks)))


def _block(body: str, name: str) -> tuple[Structure, set[str]]:
    """The one structure of a data block, every site of it, and what the reader remarks."""
    from pymatgen.io.cif import CifParser

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        parser = CifParser.from_str(f"data_{body}")
        blocks = list(parser.as_dict().values())
        for block in blocks:
            _check_sites(name, block)
        found = parser.parse_structures(primitive=False, on_error="raise") if blocks else []
    if len(found) != 1:
        raise DataError(
            f"{name} has sites, and {len(found)} structures can be read of them. Correct the "
            "block, or remove it if it is no crystal."
        )
    structure: Structure = found[0]
    announced = {_element(symbol) for symbol in _symbols(blocks[0])}
    there = {site.symbol for site in structure.composition.elements}
    if announced != {SYMBOLS[NUMBERS[s] - 1] if s in NUMBERS else s for s in there}:
        raise DataError(
            f"{name} lists sites of {sorted(map(str, announced))}, and those of {sorted(there)} "
            "are read. Correct its symbols."
        )
    if "implicit_hydrogens" in structure.site_properties:
        raise DataError(f"{name} has hydrogen without coordinates. Give every atom its place.")
    remarks = {str(one.message) for one in said if issubclass(one.category, UserWarning)}
    if wrong := [r for r in remarks if r.startswith(("Incorrect stoichiometry", "Missing elem"))]:
        raise DataError(
            f"{name}: its sites are not what its formula says ({_short(wrong[0])}). Correct the "
            "formula, or add the sites."
        )
    return structure, remarks


def _symbols(block: Mapping[str, Any]) -> Sequence[str]:
    found = block.get("_atom_site_type_symbol", block.get("_atom_site_label", ()))
    return found if isinstance(found, list) else ()


def _element(text: str) -> str | None:
    """The element that a label or symbol of a site begins with: Cl1, Fe3+, CL, O2a."""
    letters = re.match(r"[A-Za-z]*", text)
    start = letters[0] if letters else ""
    for symbol in (start[:2].title(), start[:1].upper()):
        if symbol in NUMBERS:
            return SYMBOLS[NUMBERS[symbol] - 1]
    return None


def _check_sites(name: str, block: Mapping[str, Any]) -> None:
    """Every site has an element and a whole atom, and there are not more than can be compared."""
    symbols = _symbols(block)
    labels = block.get("_atom_site_label")
    if not symbols or not isinstance(labels, list) or len(labels) != len(symbols):
        raise DataError(
            f"{name} lists no sites with labels in a loop. Write _atom_site_label, "
            "_atom_site_type_symbol and _atom_site_fract_x, _y, _z as one loop_."
        )
    if strange := [site for site, symbol in enumerate(symbols) if _element(symbol) is None]:
        raise DataError(
            f"{name}, site {strange[0]} ({labels[strange[0]]}): {symbols[strange[0]]!r} is "
            "not an element. Correct the symbol, or remove the site."
        )
    shares = block.get("_atom_site_occupancy")
    for site, share in enumerate(shares if isinstance(shares, list) else ()):
        if re.fullmatch(r"0*\.?0*(\(\d+\))?", share) and share not in (".", ""):
            raise DataError(
                f"{name}, site {site} ({labels[site]}) is partly occupied ({share}). Only "
                "ordered structures have one energy; remove the site, or order the structure."
            )
    hydrogens = block.get("_atom_site_attached_hydrogens")
    if isinstance(hydrogens, list) and any(h not in ("0", ".", "?") for h in hydrogens):
        raise DataError(f"{name} has hydrogen without coordinates. Give every atom its place.")
    listed = [block[key] for key in _OPERATIONS if isinstance(block.get(key), list)]
    n_operations = max(map(len, listed), default=1)
    if n_operations > MOST_SYMMETRY_OPERATIONS:
        raise DataError(
            f"{name} has {n_operations} symmetry operations; no space group has more than "
            f"{MOST_SYMMETRY_OPERATIONS}. Restore the file."
        )
    if len(symbols) * n_operations > MOST_POSITIONS:
        raise DataError(
            f"{name} has {len(symbols)} sites and {n_operations} operations, more than "
            f"{MOST_POSITIONS} positions to compare. Write the crystal as extended XYZ or POSCAR."
        )


# --- vasprun.xml ----------------------------------------------------------------------------------


def _vasprun(path: Path) -> StructureFile:
    from pymatgen.io.vasp.outputs import Vasprun

    texts.check(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of what is refused here
        run = Vasprun(
            path,
            parse_dos=False,
            parse_eigen=False,
            parse_projected_eigen=False,
            parse_potcar_file=False,
        )
    if not run.converged_electronic:
        raise DataError(
            f"its last electronic loop stopped after {run.parameters.get('NELM')} steps (NELM) "
            "without converging. Run it again with more steps or other mixing."
        )
    if not run.converged_ionic:
        raise DataError(
            f"its relaxation stopped after {len(run.ionic_steps)} steps (NSW = "
            f"{run.parameters.get('NSW')}) without converging. Go on from its CONTCAR."
        )
    crystals = Crystals.from_structures([run.final_structure], name=lambda _: path.name)
    last = run.ionic_steps[-1]
    forces, stress = (last.get(key) for key in ("forces", "stress"))
    return StructureFile(
        crystals=crystals,
        forces_ev_per_ang=[{} if forces is None else {"forces": np.array(forces, dtype=float)}],
        stress_gpa=[  # kB in the file, compression positive
            {}
            if stress is None
            else {"stress": _symmetric(-np.array(stress, float) / 10, "stress")}
        ],
    )


# --- extended XYZ ---------------------------------------------------------------------------------

_FORCES = re.compile(r"forc|grad", re.IGNORECASE)
_STRESS = re.compile(r"stress|virial", re.IGNORECASE)
_ONCE = ("Lattice", "Properties", "pbc")


def _extended_xyz(path: Path) -> StructureFile:
    lines = [line.rstrip("\r") for line in texts.decoded(path).split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    images: list[Any] = []
    forces: list[dict[str, np.ndarray]] = []
    stress: list[dict[str, np.ndarray]] = []
    not_read: list[tuple[str, ...]] = []
    at = 0
    while at < len(lines):
        where = f"{path.name}, frame {len(images)} (line {at + 1})"
        if not re.fullmatch(r"\s*\+?\d{1,9}\s*", lines[at]):
            raise DataError(
                f"{where}: the number of its atoms is expected, and the line is "
                f"{lines[at]!r:.60}. Frames follow each other without lines between them; remove "
                "what is there, or restore the frame before."
            )
        n = int(lines[at])
        if n < 1 or at + 2 + n > len(lines):
            raise DataError(
                f"{where} announces {n} atoms, and {max(0, len(lines) - at - 2)} lines follow it. "
                "Restore the file."
            )
        try:
            image, keys = _frame(lines[at + 1], lines[at + 2 : at + 2 + n])
            image_forces, image_stress, others = _forces_and_stress(keys, image)
        except Exception as error:  # ASE raises many kinds
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            raise DataError(f"{where}: {kind}{_short(str(error))}. Restore the frame.") from error
        images.append(image)
        forces.append(image_forces)
        stress.append(image_stress)
        not_read.append(others)
        at += 2 + n
    return StructureFile(
        crystals=Crystals.from_ase(images, name=lambda i: f"{path.name}, frame {i}"),
        forces_ev_per_ang=forces,
        stress_gpa=stress,
        not_read=not_read,
    )


def _frame(comment: str, atoms: list[str]) -> tuple[Any, dict[str, Any]]:
    """ASE's atoms, and everything that the frame says by key: of the frame and of its atoms."""
    from ase.io.extxyz import key_val_str_to_dict, read_xyz

    for key in _ONCE:
        if len(re.findall(rf"(?:^|\s){key}\s*=", comment)) > 1:
            raise DataError(f"{key} is given twice; give it once")
    keys: dict[str, Any] = dict(key_val_str_to_dict(comment)) if comment.strip() else {}
    columns: dict[str, tuple[slice, str]] = {}
    at = 0
    parts = str(keys.pop("Properties", "species:S:1:pos:R:3")).split(":")
    for name, kind, width in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if name in columns or not re.fullmatch(r"[1-9]\d{0,3}", width):
            raise DataError(f"Properties has {name} twice, or {width!r} columns of it")
        columns[name] = (slice(at, at + int(width)), kind)
        at += int(width)
    words = [line.split() for line in atoms]
    if wrong := [i for i, row in enumerate(words) if len(row) != at]:
        raise DataError(
            f"atom {wrong[0]} has {len(words[wrong[0]])} columns, and Properties announces {at}"
        )
    if "species" in columns:
        place = columns["species"][0].start
        for row in words:
            symbol = row[place].capitalize()
            if symbol in ("D", "T"):  # which ASE does not know
                row[place] = SYMBOLS[NUMBERS[symbol] - 1]
            elif symbol not in ("X", *SYMBOLS):
                gate.atomic_number(row[place], "its atoms")
    text = "\n".join([str(len(words)), comment, *(" ".join(row) for row in words), ""])
    (image,) = read_xyz(io.StringIO(text), index=slice(0, None))
    for name, (place_of, kind) in columns.items():
        if kind in ("R", "I") and (_FORCES.search(name) or _STRESS.search(name)):
            keys[name] = np.array([row[place_of] for row in words], dtype=np.float64)
    return image, keys


def _forces_and_stress(
    keys: Mapping[str, Any], image: Any
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple[str, ...]]:
    """Forces, eV/Å, stress, GPa, and keys that look like either and are not of their shape."""
    forces, stress, others = {}, {}, []
    for key, value in keys.items():
        numbers = np.asarray(value)
        if not (_FORCES.search(key) or _STRESS.search(key)) or numbers.dtype.kind not in "fiu":
            continue
        if _FORCES.search(key) and numbers.size == 3 * len(image):
            forces[key] = numbers.astype(np.float64).reshape(-1, 3)
        elif _STRESS.search(key) and numbers.size in (6, 9) and numbers.ndim < 3:
            tensor = _tensor(numbers.astype(np.float64).reshape(-1)) * GPA_PER_EV_ANG3
            if "virial" in key.lower():  # of the cell, eV, opposite in sign
                tensor = -tensor / image.get_volume()
            stress[key] = _symmetric(tensor, key)
        else:
            others.append(key)
    return forces, stress, tuple(others)


def _tensor(numbers: np.ndarray) -> np.ndarray:
    if len(numbers) == 9:
        return numbers.reshape(3, 3)
    xx, yy, zz, yz, xz, xy = numbers
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _symmetric(tensor: np.ndarray, key: str) -> np.ndarray:
    """The tensor, if it is (3, 3) and symmetric; not finite is told where rest is judged."""
    if tensor.shape != (3, 3):
        raise DataError(f"{key} has shape {tensor.shape}, expected (3, 3)")
    difference = float(np.abs(tensor - tensor.T).max())
    if difference > max(_ASYMMETRIC_GPA, 1e-3 * float(np.abs(tensor).max())):
        raise DataError(
            f"{key} is not symmetric, by {difference:.3g} GPa: {tensor.round(4).tolist()}"
        )
    return tensor


# --- the rest -------------------------------------------------------------------------------------


def _others(path: Path) -> StructureFile:
    from pymatgen.core import Structure

    if _PACKED.search(path.name):
        raise DataError(f"{path.name} is packed in a way that is not read. Unpack it, or use gzip.")
    text = _text(path)
    bare = re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)
    if bare.lower().endswith(".xsf") and (
        odd := re.search(r"^\s*(SLAB|POLYMER|MOLECULE|ATOMS|ANIMSTEPS)\b", text, re.MULTILINE)
    ):
        raise DataError(
            f"it has {odd[1]}, and one crystal that repeats in three directions is read. Give a "
            "slab or molecule a cell with vacuum and call it CRYSTAL; write frames as extended XYZ."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        structure = Structure.from_file(str(path))
    if not isinstance(structure, Structure):
        raise DataError(f"it holds a {type(structure).__name__}, not a periodic structure")
    return _without_forces(Crystals.from_structures([structure], name=lambda _: path.name))


# What a name says, and who reads it. The first that fits is taken.
FORMATS: dict[str, Callable[[Path], StructureFile]] = {
    r"\.cif(\.gz)?$": _cif,
    r"\.xml(\.gz)?$": _vasprun,
    r"\.(ext)?xyz(\.gz)?$": _extended_xyz,
    r"poscar|contcar|\.vasp(\.gz)?$": _poscar,
}
