"""Crystals written as a prototype name, species and a few lengths, angles and coordinates.

Public: PROTOTYPES, Prototype, build.

A prototype lists the Wyckoff positions that are occupied, each as its coordinate triplets in the
conventional cell of International Tables for Crystallography, volume A, modulo the centring, so
that one triplet is one atom of the primitive cell. Where the tables give two origins, the one with
the inversion centre at 0 is used, except in the types that say "origin 1". Trigonal lattices with
R centring are given in hexagonal axes (obverse). Free coordinates are letters; a length or angle
that symmetry fixes is not asked for.

To add one: write its triplets, then its row in the tests finds the space group again with spglib.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import numpy as np

from harness.data.elements import NUMBERS
from harness.errors import DataError

# Rows are primitive vectors in units of the conventional ones, right-handed.
_CENTRINGS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "P": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "F": ((0, 1 / 2, 1 / 2), (1 / 2, 0, 1 / 2), (1 / 2, 1 / 2, 0)),
    "I": ((-1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (1 / 2, 1 / 2, -1 / 2)),
    "C": ((1 / 2, -1 / 2, 0), (1 / 2, 1 / 2, 0), (0, 0, 1)),
    "R": ((2 / 3, 1 / 3, 1 / 3), (-1 / 3, 1 / 3, 1 / 3), (-1 / 3, -2 / 3, 1 / 3)),
}

# Free lengths (Å) and angles (degrees) of the conventional cell.
_LATTICES: dict[str, tuple[str, ...]] = {
    "cubic": ("a",),
    "tetragonal": ("a", "c"),
    "hexagonal": ("a", "c"),
    "orthorhombic": ("a", "b", "c"),
    "monoclinic": ("a", "b", "c", "beta"),
}

_TERM = re.compile(r"([+-]?)(?:(\d+)/(\d+)|(\d*)([a-z][a-z0-9]*)|(\d+))")


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """Which sites of which cell are occupied."""

    name: str
    space_group: int
    lattice: str  # key of _LATTICES
    centring: str  # key of _CENTRINGS
    sites: tuple[str, ...]  # one per species: "x,y,z; -x,-y,z", modulo the centring
    origin_1: bool = False

    @cached_property
    def lengths_and_angles(self) -> tuple[str, ...]:
        return _LATTICES[self.lattice]

    @cached_property
    def coordinates(self) -> tuple[str, ...]:
        """Names of the free coordinates, sorted."""
        found: set[str] = set()
        for triplet in self._triplets:
            for expression in triplet:
                found.update(name for name in expression if name)
        return tuple(sorted(found))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return self.lengths_and_angles + self.coordinates

    @cached_property
    def atoms_per_species(self) -> tuple[int, ...]:
        """Atoms of each species in the primitive cell."""
        return tuple(len(site.split(";")) for site in self.sites)

    @cached_property
    def _triplets(self) -> tuple[tuple[dict[str, Fraction], ...], ...]:
        triplets = []
        for site in self.sites:
            for triplet in site.split(";"):
                expressions = tuple(_linear(part) for part in triplet.split(","))
                if len(expressions) != 3:
                    raise DataError(f"{self.name}: {triplet!r} is not three coordinates.")
                triplets.append(expressions)
        return tuple(triplets)

    def conventional_coords(self, params: Mapping[str, float]) -> np.ndarray:
        """(n, 3) fractional coordinates in the conventional cell, one per primitive-cell atom."""
        values = {"": 1.0, **{name: float(params[name]) for name in self.coordinates}}
        return np.array(
            [
                [sum(float(k) * values[name] for name, k in part.items()) for part in triplet]
                for triplet in self._triplets
            ]
        )


@cache
def _cached_linear(expression: str) -> tuple[tuple[str, Fraction], ...]:
    terms: dict[str, Fraction] = {}
    position = 0
    while position < len(expression):
        match = _TERM.match(expression, position)
        if match is None or (position > 0 and not match[1]):
            raise DataError(f"{expression!r} is not a sum of fractions and letters.")
        sign, numerator, denominator, factor, name, whole = match.groups()
        if name:
            value = Fraction(int(factor or 1))
        elif whole:
            value = Fraction(int(whole))
        else:
            value = Fraction(int(numerator), int(denominator))
        terms[name or ""] = terms.get(name or "", Fraction(0)) + (-value if sign == "-" else value)
        position = match.end()
    if not terms:
        raise DataError("a coordinate is empty.")
    return tuple(terms.items())


def _linear(expression: str) -> dict[str, Fraction]:
    """Coefficients of a linear expression such as "-x+1/2"; the key "" is the constant."""
    return dict(_cached_linear(expression.replace(" ", "")))


def _conventional_lattice(prototype: Prototype, params: Mapping[str, float]) -> np.ndarray:
    """(3, 3) rows are conventional lattice vectors, Å."""
    a = float(params["a"])
    if prototype.lattice == "cubic":
        return np.diag([a, a, a])
    c = float(params["c"])
    if prototype.lattice == "tetragonal":
        return np.diag([a, a, c])
    if prototype.lattice == "hexagonal":
        return np.array([[a, 0, 0], [-a / 2, a * math.sqrt(3) / 2, 0], [0, 0, c]])
    b = float(params["b"])
    if prototype.lattice == "orthorhombic":
        return np.diag([a, b, c])
    beta = math.radians(float(params["beta"]))
    return np.array([[a, 0, 0], [0, b, 0], [c * math.cos(beta), 0, c * math.sin(beta)]])


def build(
    prototype: str, species: Sequence[str], params: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms of the primitive cell of a prototype.

    Args:
        prototype: a key of PROTOTYPES.
        species: chemical symbols, one for each entry of the prototype's sites, in that order.
        params: lengths a, b, c of the conventional cell in Å, beta in degrees, and the free
            coordinates; exactly PROTOTYPES[prototype].parameters.
    Returns:
        numbers: (n,) uint8 atomic numbers.
        frac_coords: (n, 3) float64 fractional coordinates in the primitive cell, in [0, 1).
        lattice: (3, 3) float64, rows are primitive lattice vectors, Å.
    Raises:
        DataError: unknown prototype or symbol, wrong number of species, or parameters missing,
            left over, not finite, or (lengths) not positive.
    """
    if prototype not in PROTOTYPES:
        raise DataError(
            f"prototype {prototype!r} is unknown; known: {', '.join(sorted(PROTOTYPES))}. "
            "Write its sites in harness/data/prototypes.py."
        )
    wanted = PROTOTYPES[prototype]
    if len(species) != len(wanted.sites):
        raise DataError(
            f"{prototype} has {len(wanted.sites)} sites and {len(species)} species were given: "
            f"{' '.join(species)}. Name one species a site, in the prototype's order."
        )
    if unknown := [symbol for symbol in species if symbol not in NUMBERS]:
        raise DataError(f"{prototype}: {unknown} are not chemical symbols. Correct them.")
    if set(params) != set(wanted.parameters):
        raise DataError(
            f"{prototype} takes the parameters {', '.join(wanted.parameters)} and was given "
            f"{', '.join(sorted(params)) or 'none'}. Give exactly those."
        )
    bad = [
        name
        for name, value in params.items()
        if not math.isfinite(value) or (name in wanted.lengths_and_angles and value <= 0)
    ]
    if bad:
        raise DataError(
            f"{prototype}: {', '.join(f'{name}={params[name]}' for name in bad)}. Lengths and "
            "angles are positive and every parameter is finite."
        )
    to_primitive = np.array(_CENTRINGS[wanted.centring], dtype=np.float64)
    lattice = to_primitive @ _conventional_lattice(wanted, params)
    frac_coords = wanted.conventional_coords(params) @ np.linalg.inv(to_primitive)
    frac_coords = np.round(frac_coords, 12) % 1.0  # so that 1 - 1e-16 becomes 0, not nearly 1
    numbers = np.repeat(
        np.array([NUMBERS[symbol] for symbol in species], dtype=np.uint8), wanted.atoms_per_species
    )
    return numbers, frac_coords, lattice


# Orbits used by several types.
_FCC_TETRAHEDRAL = "1/4,1/4,1/4; 3/4,3/4,3/4"
_HCP = "1/3,2/3,1/4; 2/3,1/3,3/4"
_P_2D_164 = "1/3,2/3,{z}; 2/3,1/3,-{z}"
_P_4F_194 = "1/3,2/3,{z}; 2/3,1/3,{z}+1/2; 2/3,1/3,-{z}; 1/3,2/3,-{z}+1/2"
_PA3_4A = "0,0,0; 1/2,0,1/2; 0,1/2,1/2; 1/2,1/2,0"
_PA3_8C = (
    "x,x,x; -x+1/2,-x,x+1/2; -x,x+1/2,-x+1/2; x+1/2,-x+1/2,-x; "
    "-x,-x,-x; x+1/2,x,-x+1/2; x,-x+1/2,x+1/2; -x+1/2,x+1/2,x"
)
_B20_4A = "{x},{x},{x}; -{x}+1/2,-{x},{x}+1/2; -{x},{x}+1/2,-{x}+1/2; {x}+1/2,-{x}+1/2,-{x}"
_R3C_18E = "x,0,1/4; 0,x,1/4; -x,-x,1/4; -x,0,3/4; 0,-x,3/4; x,x,3/4"
_R3C_12C = "0,0,z; 0,0,-z+1/2; 0,0,-z; 0,0,z+1/2"
_R3_18F = "x,y,z; -y,x-y,z; -x+y,-x,z; -x,-y,-z; y,-x+y,-z; x-y,x,-z"
_R3M_18H = (
    "{x},-{x},{z}; {x},2{x},{z}; -2{x},-{x},{z}; -{x},{x},-{z}; 2{x},{x},-{z}; -{x},-2{x},-{z}"
)
_SPINEL_8A = "1/8,1/8,1/8; 7/8,7/8,7/8"
_SPINEL_16D = "1/2,1/2,1/2; 1/2,1/4,1/4; 1/4,1/2,1/4; 1/4,1/4,1/2"
_P3121_3A = "{x},0,1/3; 0,{x},2/3; -{x},-{x},0"
_P3121_6C = (
    "{x},{y},{z}; -{y},{x}-{y},{z}+1/3; -{x}+{y},-{x},{z}+2/3; "
    "{y},{x},-{z}; {x}-{y},-{y},-{z}+2/3; -{x},-{x}+{y},-{z}+1/3"
)
_P41212_4A = "{x},{x},0; -{x},-{x},1/2; -{x}+1/2,{x}+1/2,1/4; {x}+1/2,-{x}+1/2,3/4"
_P41212_8B = (
    "x,y,z; -x,-y,z+1/2; -y+1/2,x+1/2,z+1/4; y+1/2,-x+1/2,z+3/4; "
    "-x+1/2,y+1/2,-z+1/4; x+1/2,-y+1/2,-z+3/4; y,x,-z; -y,-x,-z+1/2"
)
_PNMA_4C = "{x},1/4,{z}; -{x}+1/2,3/4,{z}+1/2; -{x},3/4,-{z}; {x}+1/2,1/4,-{z}+1/2"
_PNMA_8D = (
    "{x},{y},{z}; -{x}+1/2,-{y},{z}+1/2; -{x},{y}+1/2,-{z}; {x}+1/2,-{y}+1/2,-{z}+1/2; "
    "-{x},-{y},-{z}; {x}+1/2,{y},-{z}+1/2; {x},-{y}+1/2,{z}; -{x}+1/2,{y}+1/2,{z}+1/2"
)
_P21C_4E = "{x},{y},{z}; -{x},{y}+1/2,-{z}+1/2; -{x},-{y},-{z}; {x},-{y}+1/2,{z}+1/2"
_C2M_4I = "{x},0,{z}; -{x},0,-{z}"
_I41AMD_16H = (
    "0,y,z; 1/2,-y,z+1/2; -y+1/4,3/4,z+1/4; y+1/4,1/4,z+3/4; "
    "1/2,y,-z+1/2; 0,-y,-z; y+1/4,3/4,-z+1/4; -y+1/4,1/4,-z+3/4"
)
_I43M_24G = (
    "{x},{x},{z}; -{x},-{x},{z}; -{x},{x},-{z}; {x},-{x},-{z}; "
    "{z},{x},{x}; {z},-{x},-{x}; -{z},-{x},{x}; -{z},{x},-{x}; "
    "{x},{z},{x}; -{x},{z},-{x}; {x},-{z},-{x}; -{x},-{z},{x}"
)
_FDDD_32H = (
    "{x},{y},{z}; -{x}+3/4,-{y}+3/4,{z}; -{x}+3/4,{y},-{z}+3/4; {x},-{y}+3/4,-{z}+3/4; "
    "-{x},-{y},-{z}; {x}+1/4,{y}+1/4,-{z}; {x}+1/4,-{y},{z}+1/4; -{x},{y}+1/4,{z}+1/4"
)
_IA3_24D = (
    "u,0,1/4; -u+1/2,0,3/4; 1/4,u,0; 3/4,-u+1/2,0; 0,1/4,u; 0,3/4,-u+1/2; "
    "-u,0,3/4; u+1/2,0,1/4; 3/4,-u,0; 1/4,u+1/2,0; 0,3/4,-u; 0,1/4,u+1/2"
)
_IA3_48E_HALF = (
    "x,y,z; -x+1/2,-y,z+1/2; -x,y+1/2,-z+1/2; x+1/2,-y+1/2,-z; "
    "z,x,y; z+1/2,-x+1/2,-y; -z+1/2,-x,y+1/2; -z,x+1/2,-y+1/2; "
    "y,z,x; -y,z+1/2,-x+1/2; y+1/2,-z+1/2,-x; -y+1/2,-z,x+1/2"
)
_IA3_48E_INVERSE = (
    "-x,-y,-z; x+1/2,y,-z+1/2; x,-y+1/2,z+1/2; -x+1/2,y+1/2,z; "
    "-z,-x,-y; -z+1/2,x+1/2,y; z+1/2,x,-y+1/2; z,-x+1/2,y+1/2; "
    "-y,-z,-x; y,-z+1/2,x+1/2; -y+1/2,z+1/2,x; y+1/2,z,-x+1/2"
)
_P63M_6H = (
    "{x},{y},1/4; -{y},{x}-{y},1/4; -{x}+{y},-{x},1/4; "
    "-{x},-{y},3/4; {y},-{x}+{y},3/4; {x}-{y},{x},3/4"
)


def _f(orbits: str, **names: str) -> str:
    """An orbit of the list above with its letters named."""
    return orbits.format(**names)


def _join(*orbits: str) -> str:
    """Several orbits held by one species."""
    return "; ".join(orbits)


def _type(
    name: str, space_group: int, lattice: str, centring: str, *sites: str, origin_1: bool = False
) -> Prototype:
    return Prototype(
        name=name,
        space_group=space_group,
        lattice=lattice,
        centring=centring,
        sites=sites,
        origin_1=origin_1,
    )


_ALL = (
    # Elements, and molecules of one element.
    _type("fcc", 225, "cubic", "F", "0,0,0"),
    _type("bcc", 229, "cubic", "I", "0,0,0"),
    _type("hcp", 194, "hexagonal", "P", _HCP),
    _type("dhcp", 194, "hexagonal", "P", "0,0,0; 0,0,1/2; 1/3,2/3,1/4; 2/3,1/3,3/4"),
    _type("diamond", 227, "cubic", "F", _SPINEL_8A),
    _type("graphite", 194, "hexagonal", "P", _join("0,0,1/4; 0,0,3/4", _HCP)),
    _type("bct", 139, "tetragonal", "I", "0,0,0"),
    _type("beta-Sn", 141, "tetragonal", "I", "0,0,0; 0,1/2,1/4", origin_1=True),
    _type("alpha-Hg", 166, "hexagonal", "R", "0,0,0"),
    _type("alpha-As", 166, "hexagonal", "R", "0,0,z; 0,0,-z"),
    _type("alpha-B12", 166, "hexagonal", "R",
          _join(_f(_R3M_18H, x="x1", z="z1"), _f(_R3M_18H, x="x2", z="z2"))),
    _type("gamma-Se", 152, "hexagonal", "P", _f(_P3121_3A, x="x")),
    _type("alpha-Ga", 64, "orthorhombic", "C",
          "0,y,z; 0,-y+1/2,z+1/2; 0,y+1/2,-z+1/2; 0,-y,-z"),
    _type("alpha-U", 63, "orthorhombic", "C", "0,y,1/4; 0,-y,3/4"),
    _type("alpha-Mn", 217, "cubic", "I",
          _join("0,0,0", "u,u,u; -u,-u,u; -u,u,-u; u,-u,-u",
                _f(_I43M_24G, x="x1", z="z1"), _f(_I43M_24G, x="x2", z="z2"))),
    _type("alpha-S8", 70, "orthorhombic", "F",
          _join(*(_f(_FDDD_32H, x=f"x{k}", y=f"y{k}", z=f"z{k}") for k in (1, 2, 3, 4)))),
    _type("alpha-N2", 205, "cubic", "P", _PA3_8C),
    _type("alpha-O2", 12, "monoclinic", "C", _f(_C2M_4I, x="x", z="z")),
    _type("alpha-F2", 15, "monoclinic", "C", "x,y,z; -x,y,-z+1/2; -x,-y,-z; x,-y,z+1/2"),
    # AB, cubic.
    _type("rocksalt", 225, "cubic", "F", "0,0,0", "1/2,1/2,1/2"),
    _type("CsCl", 221, "cubic", "P", "0,0,0", "1/2,1/2,1/2"),
    _type("zincblende", 216, "cubic", "F", "0,0,0", "1/4,1/4,1/4"),
    _type("NaTl", 227, "cubic", "F", _SPINEL_8A, "3/8,3/8,3/8; 5/8,5/8,5/8"),
    _type("FeSi", 198, "cubic", "P", _f(_B20_4A, x="x1"), _f(_B20_4A, x="x2")),
    # AB, others.
    _type("wurtzite", 186, "hexagonal", "P", "1/3,2/3,0; 2/3,1/3,1/2", "1/3,2/3,u; 2/3,1/3,u+1/2"),
    _type("NiAs", 194, "hexagonal", "P", "0,0,0; 0,0,1/2", _HCP),
    _type("WC", 187, "hexagonal", "P", "0,0,0", "1/3,2/3,1/2"),
    _type("h-BN", 194, "hexagonal", "P", _HCP, "1/3,2/3,3/4; 2/3,1/3,1/4"),
    _type("covellite", 194, "hexagonal", "P",
          _join("1/3,2/3,3/4; 2/3,1/3,1/4", _f(_P_4F_194, z="z1")),
          _join(_HCP, "0,0,z2; 0,0,z2+1/2; 0,0,-z2; 0,0,-z2+1/2")),
    _type("troilite", 190, "hexagonal", "P",
          "x1,y1,z1; -y1,x1-y1,z1; -x1+y1,-x1,z1; x1,y1,-z1+1/2; -y1,x1-y1,-z1+1/2; "
          "-x1+y1,-x1,-z1+1/2; y1,x1,-z1; x1-y1,-y1,-z1; -x1,-x1+y1,-z1; "
          "y1,x1,z1+1/2; x1-y1,-y1,z1+1/2; -x1,-x1+y1,z1+1/2",
          _join("0,0,0; 0,0,1/2", "1/3,2/3,z2; 1/3,2/3,-z2+1/2; 2/3,1/3,-z2; 2/3,1/3,z2+1/2",
                "x3,y3,1/4; -y3,x3-y3,1/4; -x3+y3,-x3,1/4; "
                "y3,x3,3/4; x3-y3,-y3,3/4; -x3,-x3+y3,3/4")),
    _type("cinnabar", 152, "hexagonal", "P", _f(_P3121_3A, x="x1"),
          "x2,0,5/6; 0,x2,1/6; -x2,-x2,1/2"),
    _type("TaN", 189, "hexagonal", "P", _join("0,0,0", "1/3,2/3,1/2; 2/3,1/3,1/2"),
          "x,0,0; 0,x,0; -x,-x,0"),
    _type("litharge", 129, "tetragonal", "P", "0,1/2,z; 1/2,0,-z", "0,0,0; 1/2,1/2,0",
          origin_1=True),
    _type("cooperite", 131, "tetragonal", "P", "0,1/2,0; 1/2,0,1/2", "0,0,1/4; 0,0,3/4"),
    _type("TlI", 63, "orthorhombic", "C", "0,y1,1/4; 0,-y1,3/4", "0,y2,1/4; 0,-y2,3/4"),
    _type("HgO", 62, "orthorhombic", "P",
          _f(_PNMA_4C, x="x1", z="z1"), _f(_PNMA_4C, x="x2", z="z2")),
    _type("GeS", 62, "orthorhombic", "P",
          _f(_PNMA_4C, x="x1", z="z1"), _f(_PNMA_4C, x="x2", z="z2")),
    _type("tenorite", 15, "monoclinic", "C", "1/4,1/4,0; 3/4,1/4,1/2", "0,y,1/4; 0,-y,3/4"),
    # AB2 and A2B.
    _type("fluorite", 225, "cubic", "F", "0,0,0", _FCC_TETRAHEDRAL),
    _type("antifluorite", 225, "cubic", "F", _FCC_TETRAHEDRAL, "0,0,0"),
    _type("cuprite", 224, "cubic", "P", "0,0,0; 1/2,1/2,0; 1/2,0,1/2; 0,1/2,1/2",
          _FCC_TETRAHEDRAL),
    _type("pyrite", 205, "cubic", "P", _PA3_4A, _PA3_8C),
    _type("MgCu2", 227, "cubic", "F", _SPINEL_8A, _SPINEL_16D),
    _type("rutile", 136, "tetragonal", "P", "0,0,0; 1/2,1/2,1/2",
          "u,u,0; -u,-u,0; -u+1/2,u+1/2,1/2; u+1/2,-u+1/2,1/2"),
    _type("anatase", 141, "tetragonal", "I", "0,0,0; 0,1/2,1/4",
          "0,0,u; 0,0,-u; 0,1/2,u+1/4; 0,1/2,-u+1/4", origin_1=True),
    _type("MoSi2", 139, "tetragonal", "I", "0,0,0", "0,0,z; 0,0,-z"),
    _type("CaC2", 139, "tetragonal", "I", "0,0,0", "0,0,z; 0,0,-z"),
    _type("calomel", 139, "tetragonal", "I", "0,0,z1; 0,0,-z1", "0,0,z2; 0,0,-z2"),
    _type("HgI2", 137, "tetragonal", "P", "3/4,1/4,3/4; 1/4,3/4,1/4",
          "1/4,1/4,z; 1/4,1/4,z+1/2; 3/4,3/4,-z; 3/4,3/4,-z+1/2"),
    _type("cristobalite", 92, "tetragonal", "P", _f(_P41212_4A, x="u"), _P41212_8B),
    _type("paratellurite", 92, "tetragonal", "P", _f(_P41212_4A, x="u"), _P41212_8B),
    _type("quartz", 152, "hexagonal", "P", _f(_P3121_3A, x="u"),
          _f(_P3121_6C, x="x", y="y", z="z")),
    _type("CdI2", 164, "hexagonal", "P", "0,0,0", _f(_P_2D_164, z="u")),
    _type("CdCl2", 166, "hexagonal", "R", "0,0,0", "0,0,u; 0,0,-u"),
    _type("MoS2", 194, "hexagonal", "P", _HCP, _f(_P_4F_194, z="z")),
    _type("AlB2", 191, "hexagonal", "P", "0,0,0", "1/3,2/3,1/2; 2/3,1/3,1/2"),
    _type("CaCl2", 58, "orthorhombic", "P", "0,0,0; 1/2,1/2,1/2",
          "x,y,0; -x,-y,0; -x+1/2,y+1/2,1/2; x+1/2,-y+1/2,1/2"),
    _type("baddeleyite", 14, "monoclinic", "P", _f(_P21C_4E, x="x1", y="y1", z="z1"),
          _join(_f(_P21C_4E, x="x2", y="y2", z="z2"), _f(_P21C_4E, x="x3", y="y3", z="z3"))),
    # AB3 and A3B.
    _type("Cu3Au", 221, "cubic", "P", "1/2,1/2,0; 1/2,0,1/2; 0,1/2,1/2", "0,0,0"),
    _type("Cr3Si", 223, "cubic", "P",
          "1/4,0,1/2; 3/4,0,1/2; 1/2,1/4,0; 1/2,3/4,0; 0,1/2,1/4; 0,1/2,3/4",
          "0,0,0; 1/2,1/2,1/2"),
    _type("TiAl3", 139, "tetragonal", "I", "0,0,0", "0,0,1/2; 0,1/2,1/4; 1/2,0,1/4"),
    _type("BiI3", 148, "hexagonal", "R", "0,0,u; 0,0,-u", _R3_18F),
    _type("VF3", 167, "hexagonal", "R", "0,0,0; 0,0,1/2", _R3C_18E),
    _type("UCl3", 176, "hexagonal", "P", _HCP, _f(_P63M_6H, x="x", y="y")),
    _type("Li3N", 191, "hexagonal", "P", _join("0,0,1/2", "1/3,2/3,0; 2/3,1/3,0"), "0,0,0"),
    _type("AlCl3", 12, "monoclinic", "C", "0,y1,0; 0,-y1,0",
          _join(_f(_C2M_4I, x="x2", z="z2"), "x3,y3,z3; -x3,y3,-z3; -x3,-y3,-z3; x3,-y3,z3")),
    _type("MoO3", 62, "orthorhombic", "P", _f(_PNMA_4C, x="x1", z="z1"),
          _join(*(_f(_PNMA_4C, x=f"x{k}", z=f"z{k}") for k in (2, 3, 4)))),
    _type("cementite", 62, "orthorhombic", "P",
          _join(_f(_PNMA_4C, x="x1", z="z1"), _f(_PNMA_8D, x="x2", y="y2", z="z2")),
          _f(_PNMA_4C, x="x3", z="z3")),
    # A2B3 and A3B4, A2B5.
    _type("corundum", 167, "hexagonal", "R", _R3C_12C, _R3C_18E),
    _type("bixbyite", 206, "cubic", "I",
          _join("1/4,1/4,1/4; 1/4,3/4,3/4; 3/4,3/4,1/4; 3/4,1/4,3/4", _IA3_24D),
          _join(_IA3_48E_HALF, _IA3_48E_INVERSE)),
    _type("La2O3", 164, "hexagonal", "P", _f(_P_2D_164, z="z1"),
          _join("0,0,0", _f(_P_2D_164, z="z2"))),
    _type("tetradymite", 166, "hexagonal", "R", "0,0,z1; 0,0,-z1",
          _join("0,0,0", "0,0,z2; 0,0,-z2")),
    _type("beta-Ga2O3", 12, "monoclinic", "C",
          _join(*(_f(_C2M_4I, x=f"x{k}", z=f"z{k}") for k in (1, 2))),
          _join(*(_f(_C2M_4I, x=f"x{k}", z=f"z{k}") for k in (3, 4, 5)))),
    _type("hausmannite", 141, "tetragonal", "I",
          _join("0,3/4,1/8; 0,1/4,7/8", "0,0,1/2; 1/2,0,0; 1/4,3/4,3/4; 1/4,1/4,1/4"),
          _I41AMD_16H),
    _type("beta-Si3N4", 176, "hexagonal", "P", _f(_P63M_6H, x="x1", y="y1"),
          _join(_HCP, _f(_P63M_6H, x="x2", y="y2"))),
    _type("V2O5", 59, "orthorhombic", "P",
          "x1,1/4,z1; -x1+1/2,1/4,z1; -x1,3/4,-z1; x1+1/2,3/4,-z1",
          _join("x2,1/4,z2; -x2+1/2,1/4,z2; -x2,3/4,-z2; x2+1/2,3/4,-z2",
                "x3,1/4,z3; -x3+1/2,1/4,z3; -x3,3/4,-z3; x3+1/2,3/4,-z3",
                "1/4,1/4,z4; 3/4,3/4,-z4")),
    # Three elements.
    _type("perovskite", 221, "cubic", "P", "0,0,0", "1/2,1/2,1/2",
          "1/2,1/2,0; 1/2,0,1/2; 0,1/2,1/2"),
    _type("BaTiO3-tetragonal", 99, "tetragonal", "P", "0,0,0", "1/2,1/2,z1",
          _join("1/2,1/2,z2", "1/2,0,z3; 0,1/2,z3")),
    _type("GdFeO3", 62, "orthorhombic", "P", _f(_PNMA_4C, x="x1", z="z1"),
          "0,0,1/2; 1/2,0,0; 0,1/2,1/2; 1/2,1/2,0",
          _join(_f(_PNMA_4C, x="x2", z="z2"), _f(_PNMA_8D, x="x3", y="y3", z="z3"))),
    _type("LaAlO3", 167, "hexagonal", "R", "0,0,0; 0,0,1/2", "0,0,1/4; 0,0,3/4", _R3C_18E),
    _type("ilmenite", 148, "hexagonal", "R", "0,0,z1; 0,0,-z1", "0,0,z2; 0,0,-z2", _R3_18F),
    _type("spinel", 227, "cubic", "F", _SPINEL_8A, _SPINEL_16D,
          "u,u,u; -u+3/4,-u+1/4,u+1/2; -u+1/4,u+1/2,-u+3/4; u+1/2,-u+3/4,-u+1/4; "
          "u+3/4,u+1/4,-u+1/2; -u,-u,-u; u+1/4,-u+1/2,u+3/4; -u+1/2,u+3/4,u+1/4"),
    _type("olivine", 62, "orthorhombic", "P",
          _f(_PNMA_4C, x="x1", z="z1"),
          "0,0,0; 1/2,0,1/2; 0,1/2,0; 1/2,1/2,1/2",
          _f(_PNMA_4C, x="x2", z="z2"),
          _join(_f(_PNMA_4C, x="x3", z="z3"), _f(_PNMA_4C, x="x4", z="z4"),
                _f(_PNMA_8D, x="x5", y="y5", z="z5"))),
    _type("calcite", 167, "hexagonal", "R", "0,0,0; 0,0,1/2", "0,0,1/4; 0,0,3/4", _R3C_18E),
    _type("aragonite", 62, "orthorhombic", "P",
          _f(_PNMA_4C, x="x1", z="z1"), _f(_PNMA_4C, x="x2", z="z2"),
          _join(_f(_PNMA_4C, x="x3", z="z3"), _f(_PNMA_8D, x="x4", y="y4", z="z4"))),
    _type("dolomite", 148, "hexagonal", "R", "0,0,0", "0,0,1/2", "0,0,u; 0,0,-u", _R3_18F),
    _type("scheelite", 88, "tetragonal", "I", "0,1/4,5/8; 1/2,1/4,7/8", "0,1/4,1/8; 1/2,1/4,3/8",
          "x,y,z; -x+1/2,-y,z+1/2; -y+3/4,x+1/4,z+1/4; y+3/4,-x+3/4,z+3/4; "
          "-x,-y,-z; x+1/2,y,-z+1/2; y+1/4,-x+3/4,-z+3/4; -y+1/4,x+1/4,-z+1/4"),
    _type("zircon", 141, "tetragonal", "I", "0,3/4,1/8; 0,1/4,7/8", "0,1/4,3/8; 0,3/4,5/8",
          _I41AMD_16H),
    _type("brucite", 164, "hexagonal", "P", "0,0,0", _f(_P_2D_164, z="z1"), _f(_P_2D_164, z="z2")),
    _type("LiOH", 129, "tetragonal", "P", "0,0,0; 1/2,1/2,0", "0,1/2,z1; 1/2,0,-z1",
          "0,1/2,z2; 1/2,0,-z2", origin_1=True),
    _type("matlockite", 129, "tetragonal", "P", "0,1/2,z1; 1/2,0,-z1", "0,0,0; 1/2,1/2,0",
          "0,1/2,z2; 1/2,0,-z2", origin_1=True),
    _type("gamma-LiAlO2", 92, "tetragonal", "P", _f(_P41212_4A, x="u"), _f(_P41212_4A, x="v"),
          _P41212_8B),
    _type("K2PtCl6", 225, "cubic", "F", _FCC_TETRAHEDRAL, "0,0,0",
          "x,0,0; -x,0,0; 0,x,0; 0,-x,0; 0,0,x; 0,0,-x"),
)  # fmt: skip

PROTOTYPES: dict[str, Prototype] = {prototype.name: prototype for prototype in _ALL}
