"""Frames away from equilibrium with DFT energies, forces and stress; and curves of dimers.

Sources, all public; the files are read from the folder that HARNESS_DATA names:

mlearn/X-test.json.gz (X = Si, Ge, Li, Mo, Cu, Ni): data/X/test.json of materialsvirtuallab/mlearn
    (BSD-3-Clause), compressed. Y. Zuo et al., J. Phys. Chem. A 124, 731 (2020). VASP, PBE.
    Molecular dynamics from 300 K to above melting, vacancies, strained cells and surfaces.
    virial_stress is VASP's: kbar, compression positive, xx yy zz xy yz zx.
off_equilibrium/SET.xyz.gz: data/benchmarks of microsoft/mattersim (MIT). H. Yang et al.,
    arXiv:2405.04967. VASP, PBE and PBE+U as in the Materials Project; energies are raw, without
    MP2020 corrections; stress in eV/Å^3, tension positive. The TP sets are five frames each of
    molecular dynamics at 0 to 5000 K and up to 1000 GPa; random-TP starts from random elements at
    random places.
diatomics-dft.json.gz: site/src/lib/diatomics-dft.json.gz of janosh/matbench-discovery (MIT).
    VASP in a 15 Å box, at each distance the lowest of several spin states, so that curves may have
    kinks where the state changes; some lanthanides jump between states.

Public: FRAME_SETS, MLEARN, TEMPERATURE_PRESSURE, PUBLISHED_MAE_EV_PER_ATOM, Frames, load_frames,
Dimers, load_dimers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from harness.data import gate, texts
from harness.data.conversions import converted
from harness.data.crystals import Crystals
from harness.data.elements import NUMBERS, SYMBOLS
from harness.data.official_layout import crystals_from_json
from harness.data.paths import require_shared_data_file, shared_data_dir
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, DataAbsent, DataError
from harness.files import sha256_of

GPA_PER_KBAR = 0.1


@dataclass(frozen=True, kw_only=True)
class FrameSet:
    """Where a set comes from. What it holds is in the module's header."""

    file: str  # in HARNESS_DATA
    source: str  # publisher's repository and file
    licence: str
    n_official: int  # frames in the published file
    sha256: str  # of the published text


def _mlearn(symbol: str, n: int, sha256: str) -> FrameSet:
    return FrameSet(
        file=f"mlearn/{symbol}-test.json.gz",
        source=f"materialsvirtuallab/mlearn on GitHub, data/{symbol}/test.json, gzipped",
        licence="BSD-3-Clause",
        n_official=n,
        sha256=sha256,
    )


def _mattersim(name: str, n: int, sha256: str) -> FrameSet:
    return FrameSet(
        file=f"off_equilibrium/{name}.xyz.gz",
        source=f"microsoft/mattersim on GitHub, data/benchmarks/{name}.xyz, gzipped",
        licence="MIT",
        n_official=n,
        sha256=sha256,
    )


_MLEARN_FRAMES = {
    "Si": (25, "d452b30a89f23bff76f7cc529b7b6c2d159ea81ccd5a4599fb1a18207654fa91"),
    "Ge": (25, "737ea6159c9dd27ebee7fb8ffae22f15e20466884927771248ca4f5b2cd3f093"),
    "Li": (29, "554d0ce60b35a07b357be3a80bf04f68eb8fc97b5a88328caf08c860b5e9b260"),
    "Mo": (23, "68169e2927c2115daa2f504805fcb9548ee65daf2dd015428807ba92f8e13bb8"),
    "Cu": (31, "1805a315ce8d0ce4a18bb761df4c4f619909ce114d598d426015d0071edc98c2"),
    "Ni": (31, "dccbfa14ddff5d1d35f658c48b68f6b431f95496a5261ef8b8f4d1d41e36008a"),
}
_MATTERSIM_FRAMES = {
    "mptrj-random-1k": (1000, "8e48469016e5baf69d765580416238c81ea84887db61dc424c43936ebf50f7e5"),
    "mptrj-highest-stress-1k": (
        1000,
        "20ce1cd8da3ccdc45c1904a8b3bf9583f03c595b914682661de221a633170249",
    ),
    "alexandria-random-1k": (
        1000,
        "067b94bde28b2c88b57c3e38cab72bee7e551820b7eb3489eaf49d1595f538d2",
    ),
    "mpf-TP": (1069, "5d07c81a4061ee314c84d6e5fb5913dc527e8536bc359fa00090bd206965d516"),
    "mpf-alkali-TP": (460, "52a7d4b202e2abd5b294f5bbcdb73072a1f2813d301ec878a5bf0641b1c15c8c"),
    "random-TP": (693, "c14473dcf4bd71e1ed11556ac9ff12b68e7a423d813f939bc9eedaef663054d9"),
}
FRAME_SETS: dict[str, FrameSet] = {
    **{f"mlearn-{symbol}": _mlearn(symbol, *of) for symbol, of in _MLEARN_FRAMES.items()},
    **{name: _mattersim(name, *of) for name, of in _MATTERSIM_FRAMES.items()},
}
MLEARN = tuple(f"mlearn-{symbol}" for symbol in _MLEARN_FRAMES)
TEMPERATURE_PRESSURE = ("mpf-TP", "mpf-alkali-TP", "random-TP")

# Energy MAE, eV/atom, that MatterSim's model card gives for these very frames.
# Source: microsoft/mattersim, MODEL_CARD.md, table "Results".
PUBLISHED_MAE_EV_PER_ATOM: dict[str, dict[str, float]] = {
    "mptrj-random-1k": {"MatterSim-v1-1M": 0.030, "MatterSim-v1-5M": 0.024},
    "mptrj-highest-stress-1k": {"MatterSim-v1-1M": 0.110, "MatterSim-v1-5M": 0.108},
    "alexandria-random-1k": {"MatterSim-v1-1M": 0.058, "MatterSim-v1-5M": 0.016},
    "mpf-alkali-TP": {"MatterSim-v1-1M": 0.024, "MatterSim-v1-5M": 0.021},
    "mpf-TP": {"MatterSim-v1-1M": 0.029, "MatterSim-v1-5M": 0.026},
    "random-TP": {"MatterSim-v1-1M": 0.208, "MatterSim-v1-5M": 0.199},
}

DIMERS_FILE = "diatomics-dft.json.gz"
DIMERS_SHA256 = "9de79a3b0eade98272971d0d819475e69379127d1e3622fae0cf3053b355af9f"  # of its text
DIMERS_SOURCE = "janosh/matbench-discovery on GitHub, site/src/lib/diatomics-dft.json.gz"
FARTHEST_DIMER_ANG = 100.0  # beyond any interaction; further is another unit or damage
_VOIGT_OF_VASP = ((0, 3, 5), (3, 1, 4), (5, 4, 2))  # into xx yy zz xy yz zx


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """n frames with what DFT says of them. Treat the arrays as read-only.

    Raises:
        DataError: lengths differ, or a value is not finite; the message names the frame.
    """

    name: str
    ids: np.ndarray  # (n,) str, unique
    groups: np.ndarray  # (n,) str, the publisher's word for the kind of frame, "" where none
    crystals: Crystals
    energy_ev_per_atom: np.ndarray  # (n,) float64, raw VASP
    forces_ev_per_ang: np.ndarray  # (N, 3) float64, in the crystals' order of atoms
    stress_gpa: np.ndarray  # (n, 3, 3) float64, tension positive
    inputs: dict[str, str]  # file -> sha256
    n_official: int  # frames in the published file

    def __post_init__(self) -> None:
        n, n_atoms = len(self.crystals), len(self.crystals.numbers)
        for what, array, shape in (
            ("energy_ev_per_atom", self.energy_ev_per_atom, (n,)),
            ("forces_ev_per_ang", self.forces_ev_per_ang, (n_atoms, 3)),
            ("stress_gpa", self.stress_gpa, (n, 3, 3)),
        ):
            if array.shape != shape:
                raise DataError(f"{self.name}: {what} has shape {array.shape}, expected {shape}")
            wrong = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
            if len(wrong):
                frame = int(wrong[0])
                if what == "forces_ev_per_ang":
                    frame = int(self.crystals.row_of_atom[frame])
                raise DataError(
                    f"{self.name}, frame {frame} ({self.ids[frame]}): {what} is not finite. "
                    "Restore the file it came from."
                )
        names, counts = np.unique(self.ids, return_counts=True)
        if len(self.ids) != n or len(self.groups) != n or (counts > 1).any():
            twice = names[counts > 1][:3].tolist()
            raise DataError(f"{self.name}: {n} frames need as many ids, none twice ({twice})")

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self) -> dict[str, np.ndarray]:
        """Every array by its field's name, those of the crystals among them."""
        own = ("ids", "groups", "energy_ev_per_atom", "forces_ev_per_ang", "stress_gpa")
        return {**{name: getattr(self, name) for name in own}, **self.crystals.columns()}

    def __getitem__(self, rows: np.ndarray) -> Frames:
        """Frames at these positions, (k,) integers."""
        return Frames(
            name=self.name,
            ids=self.ids[rows],
            groups=self.groups[rows],
            crystals=self.crystals[rows],
            energy_ev_per_atom=self.energy_ev_per_atom[rows],
            forces_ev_per_ang=self.forces_ev_per_ang[self.crystals.atoms_of(rows)],
            stress_gpa=self.stress_gpa[rows],
            inputs=self.inputs,
            n_official=self.n_official,
        )

    @property
    def pressure_gpa(self) -> np.ndarray:
        """(n,) float64 hydrostatic part of the DFT stress, compression positive."""
        return -np.trace(self.stress_gpa, axis1=1, axis2=2) / 3


def load_frames(name: str, path: Path | None = None) -> Frames:
    """One set by its name in FRAME_SETS; ``path`` names another file in the same layout.

    Raises:
        ConfigError: the name is unknown.
        DataAbsent: the file is not in HARNESS_DATA; the message says where it is published.
        DataError: the file in HARNESS_DATA is not the published one, or a file is not as described;
            the message names the frame.
    """
    if name not in FRAME_SETS:
        raise ConfigError(f"no set of frames {name!r}; known: {', '.join(FRAME_SETS)}")
    about = FRAME_SETS[name]
    published = path is None
    at = path or _require(about.file, about.source)

    def columns_of() -> dict[str, np.ndarray]:
        if published:
            texts.check_published(at, about.sha256, about.source)
        return (_read_mlearn if name in MLEARN else _read_xyz)(name, at).columns()

    kind = f"frames-2-{name}" if published else f"frames-2-{name}-other"
    columns, sha256 = converted(at, kind, columns_of)
    fields = ("numbers", "frac_coords", "lattices", "offsets")
    crystals = Crystals(**{field: columns.pop(field) for field in fields})
    return Frames(
        name=name,
        crystals=crystals,
        inputs={about.file: sha256},
        n_official=about.n_official,
        **columns,
    )


def _require(file: str, source: str) -> Path:
    if shared_data_dir() is None:  # one reason for all sets
        raise DataAbsent(
            "it needs published frames, which are not part of the project. Put them in a folder "
            "and name it in HARNESS_DATA; docs/data.md says which files, and who publishes them"
        )
    try:
        return require_shared_data_file(file)
    except DataAbsent as error:
        raise DataAbsent(f"{error}, with this file in it. It is published by {source}") from None


# --- mlearn ---------------------------------------------------------------------------------------


class _Outputs(msgspec.Struct):
    energy: float
    forces: list[tuple[float, float, float]]
    virial_stress: tuple[float, float, float, float, float, float]


class _MlearnFrame(msgspec.Struct):
    structure: msgspec.Raw
    group: str
    num_atoms: int
    outputs: _Outputs
    description: str = ""


def _read_mlearn(name: str, path: Path) -> Frames:
    try:
        rows = msgspec.json.decode(texts.json_text(path), type=list[_MlearnFrame])
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is not a list of mlearn frames ({error}). Restore it from "
            f"{FRAME_SETS[name].source}."
        ) from error
    if not rows:
        raise DataError(f"{path} holds no frames. Restore it from {FRAME_SETS[name].source}.")
    ids = [f"{name}-{i:02d}" for i in range(len(rows))]
    crystals = crystals_from_json([bytes(row.structure) for row in rows], path, ids)
    for i, (row, n) in enumerate(zip(rows, crystals.n_atoms.tolist(), strict=True)):
        if not n == row.num_atoms == len(row.outputs.forces):
            raise DataError(
                f"{path}, frame {i} ({ids[i]}): {n} sites, num_atoms {row.num_atoms}, "
                f"{len(row.outputs.forces)} forces. Restore the file."
            )
    kbar = np.array([row.outputs.virial_stress for row in rows])
    return Frames(
        name=name,
        ids=np.array(ids),
        groups=np.array([row.group for row in rows]),
        crystals=crystals,
        energy_ev_per_atom=np.array([row.outputs.energy / row.num_atoms for row in rows]),
        forces_ev_per_ang=np.concatenate([np.array(row.outputs.forces) for row in rows]),
        stress_gpa=-GPA_PER_KBAR * kbar[:, np.array(_VOIGT_OF_VASP)],
        inputs={FRAME_SETS[name].file: sha256_of(path)},
        n_official=FRAME_SETS[name].n_official,
    )


# --- extended XYZ ---------------------------------------------------------------------------------

_PROPERTIES = "species:S:1:pos:R:3:forces:R:3"
_UNITS = {"energy_unit": "eV", "forces_unit": "eV/A", "stress_unit": "eV/A^3"}
_RESULTS = ("energy", "stress", *_UNITS)
_RESULT = re.compile(r"energy|forc|stress|virial", re.IGNORECASE)
_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|(\S+))')


def _read_xyz(name: str, path: Path) -> Frames:
    """MatterSim's layout only: another order of columns or other units are refused, not guessed."""
    lines = texts.decoded(path).splitlines()
    ids: list[str] = []
    counts: list[int] = []
    energies, stresses, lattices = [], [], []
    numbers: list[int] = []
    values: list[list[str]] = []
    at = 0
    while at < len(lines):
        where = f"{path}, frame {len(ids)} (line {at + 1})"
        try:
            n = int(lines[at])
            pairs = _PAIR.findall(lines[at + 1])
            header = {key: quoted or bare for key, quoted, bare in pairs}
            if len(header) != len(pairs):
                raise ValueError("a key is given twice")
            if unread := [key for key in header if _RESULT.search(key) and key not in _RESULTS]:
                raise ValueError(f"{', '.join(unread)} would not be read")
            if header["Properties"] != _PROPERTIES or header["pbc"] != "T T T":
                raise ValueError(f"Properties={header['Properties']}, pbc={header['pbc']}")
            if other := {k: header[k] for k, unit in _UNITS.items() if header[k] != unit}:
                raise ValueError(f"other units: {other}")
            atoms = [line.split() for line in lines[at + 2 : at + 2 + n]]
            if n < 1 or len(atoms) != n or any(len(atom) != 7 for atom in atoms):
                raise ValueError(f"{n} atoms of 7 columns were announced, and others are there")
            lattices.append(_numbers(header["Lattice"], 9))
            stresses.append(_numbers(header["stress"], 9))
            energies.append(float(header["energy"]) / n)
            numbers.extend(NUMBERS[atom[0]] for atom in atoms)
            values.extend(atom[1:] for atom in atoms)
            ids.append("/".join(value for key, value in header.items() if key.endswith("_id")))
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(
                f"{where} is not as described ({type(error).__name__}: {error}). Restore the file "
                f"from {FRAME_SETS[name].source}."
            ) from error
        counts.append(n)
        at += 2 + n
    if not ids:
        raise DataError(f"{path} holds no frames. Restore it from {FRAME_SETS[name].source}.")
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    table = _float_rows(values, path, offsets)
    lattice = np.array(lattices).reshape(-1, 3, 3)
    return Frames(
        name=name,
        ids=np.array(ids),
        groups=np.full(len(ids), ""),
        crystals=_periodic(np.array(numbers), table[:, :3], lattice, offsets, path),
        energy_ev_per_atom=np.array(energies),
        forces_ev_per_ang=table[:, 3:],
        stress_gpa=_symmetric(GPA_PER_EV_ANG3 * np.array(stresses).reshape(-1, 3, 3), path),
        inputs={FRAME_SETS[name].file: sha256_of(path)},
        n_official=FRAME_SETS[name].n_official,
    )


def _numbers(text: str, n: int) -> list[float]:
    found = [float(word) for word in text.split()]
    if len(found) != n:
        raise ValueError(f"{n} numbers expected, {len(found)} found: {text!r}")
    return found


def _float_rows(values: list[list[str]], path: Path, offsets: np.ndarray) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        for atom, words in enumerate(values):
            try:
                [float(word) for word in words]
            except ValueError as error:
                frame = int(np.searchsorted(offsets, atom, side="right")) - 1
                raise DataError(
                    f"{path}, frame {frame}, atom {atom - int(offsets[frame])}: {error}. Restore "
                    "the file."
                ) from error
        raise


_MOST_ASYMMETRY_GPA = 0.01  # of a stress tensor, which has ten digits in the published files


def _symmetric(stress_gpa: np.ndarray, path: Path) -> np.ndarray:
    """(n, 3, 3), if every tensor is symmetric."""
    difference = np.abs(stress_gpa - stress_gpa.transpose(0, 2, 1)).max(axis=(1, 2), initial=0.0)
    if (wrong := np.flatnonzero(~(difference <= _MOST_ASYMMETRY_GPA))).size:
        raise DataError(
            f"{path}, frame {wrong[0]}: its stress is not symmetric, by {difference[wrong[0]]:.3g} "
            f"GPa, or not finite: {stress_gpa[wrong[0]].tolist()}. Restore the file."
        )
    return stress_gpa


def _periodic(
    numbers: np.ndarray,
    positions_ang: np.ndarray,
    lattices: np.ndarray,
    offsets: np.ndarray,
    path: Path,
) -> Crystals:
    """Crystals from Cartesian positions."""

    def name(frame: int) -> str:
        return f"{path}, frame {frame}"

    gate.check_cells(lattices, name)
    owner = np.repeat(np.arange(len(lattices)), np.diff(offsets))
    inverse = np.linalg.inv(lattices)
    return Crystals.admitted(
        numbers.astype(np.uint8),
        np.einsum("ai,aij->aj", positions_ang, inverse[owner]),
        lattices,
        offsets,
        name=name,
    )


# --- dimers ---------------------------------------------------------------------------------------


class _Curve(msgspec.Struct):
    distances: list[float]
    energies: list[float]
    forces: list[tuple[tuple[float, float, float], tuple[float, float, float]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dimers:
    """Curves of homonuclear dimers, all points in one column, distances rising in each curve."""

    functional: str
    symbols: tuple[str, ...]  # (m,) one a curve
    offsets: np.ndarray  # (m + 1,) int64: curve i owns offsets[i] : offsets[i + 1]
    distance_ang: np.ndarray  # (n,) float64
    energy_ev: np.ndarray  # (n,) float64 of both atoms together
    force_ev_per_ang: np.ndarray  # (n,) float64 along the bond, positive = repulsive
    inputs: dict[str, str]  # file -> sha256

    @property
    def curve_of_point(self) -> np.ndarray:
        """(n,) int64 which curve each point belongs to."""
        return np.repeat(np.arange(len(self.symbols)), np.diff(self.offsets))

    def points(self, curve: int) -> slice:
        """Where the points of one curve lie in the columns."""
        return slice(int(self.offsets[curve]), int(self.offsets[curve + 1]))

    def crystals(self, box_ang: float) -> Crystals:
        """One row a point: two atoms along x about the centre of a cube of edge ``box_ang``.

        Periodic images are at least ``box_ang`` less the distance apart.

        Raises:
            ConfigError: the box is less than three times the largest distance.
        """
        n = len(self.distance_ang)
        if box_ang < 3 * self.distance_ang.max():
            raise ConfigError(
                f"a box of {box_ang:g} Å for distances up to {self.distance_ang.max():g} Å brings "
                "images near; take at least three times the distance"
            )
        z = np.array([NUMBERS[symbol] for symbol in self.symbols], dtype=np.uint8)
        half = self.distance_ang / (2 * box_ang)
        coords = np.full((n, 2, 3), 0.5)
        coords[:, 0, 0] -= half
        coords[:, 1, 0] += half
        return Crystals(
            numbers=np.repeat(z[self.curve_of_point], 2),
            frac_coords=coords.reshape(-1, 3),
            lattices=np.broadcast_to(np.eye(3) * box_ang, (n, 3, 3)).copy(),
            offsets=2 * np.arange(n + 1, dtype=np.int64),
        )


def load_dimers(functional: str = "PBE", path: Path | None = None) -> Dimers:
    """Curves of every element in the file, in order of atomic number.

    Raises:
        DataAbsent: the file is not in HARNESS_DATA; the message says where it is published.
        DataError: the file in HARNESS_DATA is not the published one, or a file is not as described;
            the message names the curve.
    """
    if path is None:
        path = _require(DIMERS_FILE, DIMERS_SOURCE)
        texts.check_published(path, DIMERS_SHA256, DIMERS_SOURCE)
    restore = f"Restore it from {DIMERS_SOURCE}."
    try:
        text = texts.json_text(path)
        functionals = msgspec.json.decode(text, type=dict[str, dict[str, _Curve]])
    except msgspec.MsgspecError as error:
        raise DataError(f"{path} is not a file of dimer curves ({error}). {restore}") from error
    if functional not in functionals:
        raise DataError(f"{path} has no {functional} curves, but {sorted(functionals)}. {restore}")
    curves: dict[str, _Curve] = {}
    for pair, curve in functionals[functional].items():
        first, _, second = pair.partition("-")
        if first != second or first not in NUMBERS:
            raise DataError(f"{path}: {pair!r} is no pair of equal elements. {restore}")
        curves[first] = curve
    symbols = tuple(symbol for symbol in SYMBOLS if symbol in curves)
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for symbol in symbols:
        curve = curves[symbol]
        where = f"{path}, {functional} {symbol}-{symbol}"
        lengths = {len(curve.distances), len(curve.energies), len(curve.forces)}
        if len(lengths) != 1 or min(lengths) < 3:
            raise DataError(f"{where}: columns of {sorted(lengths)} points. {restore}")
        r, e, f = (np.array(x) for x in (curve.distances, curve.energies, curve.forces))
        if not all(np.isfinite(x).all() for x in (r, e, f)):
            raise DataError(f"{where}: a value is not finite. {restore}")
        rising = all(a < b for a, b in pairwise(curve.distances))
        if not rising or r[0] <= 0 or r[-1] > FARTHEST_DIMER_ANG:
            raise DataError(
                f"{where}: distances do not rise from above zero to {FARTHEST_DIMER_ANG:g} Å at "
                f"most. {restore}"
            )
        # Along x and equal and opposite, to the rounding of six decimals.
        off_axis = max(float(np.abs(f[:, :, 1:]).max()), float(np.abs(f.sum(axis=1)).max()))
        if off_axis > 1e-3:
            raise DataError(
                f"{where}: forces are not equal and opposite along x (by {off_axis:g} eV/Å), so "
                f"there is no force along the bond to speak of. {restore}"
            )
        columns.append((r, e, (f[:, 1, 0] - f[:, 0, 0]) / 2))
    if not columns:
        raise DataError(f"{path} has no curve under {functional}. {restore}")
    distance, energy, force = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Dimers(
        functional=functional,
        symbols=symbols,
        offsets=np.concatenate([[0], np.cumsum([len(r) for r, _, _ in columns])]).astype(np.int64),
        distance_ang=distance,
        energy_ev=energy,
        force_ev_per_ang=force,
        inputs={DIMERS_FILE: sha256_of(path)},
    )
