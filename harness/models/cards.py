"""What a subject declares about itself; `physics.declares-itself` holds it to that.

Public: Card, UNITS, UNDECLARED, DECLARABLE, query_of, elements_named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import unquote

import numpy as np

from harness.data.elements import NUMBERS, SYMBOLS
from harness.errors import ConfigError

UNITS: Mapping[str, str] = {  # every subject's, whatever its own package uses
    "energy": "eV/atom",
    "forces": "eV/Å",
    "stress": "GPa, tension positive",
    "magmoms": "μB, magnitudes",
}
UNDECLARED = "not declared"
DECLARABLE = ("theory", "training_set", "energies", "dispersion")  # by a name, of any weights


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a subject says of itself. Statements are the authors'; the source says where."""

    elements: frozenset[int] | None  # atomic numbers it knows; None: not declared
    theory: str = UNDECLARED  # level of theory of what it was trained on
    training_set: str = UNDECLARED
    energies: str = UNDECLARED  # what its total energies contain
    dispersion: str = ""  # what is added for it, "D3(BJ)" or "none"; empty: nothing is said
    properties: tuple[str, ...] = ("energy",)  # of UNITS, what predict() gives
    parameters: str = ""  # what was found of them, where a subject is not known by its weights
    source: str = ""

    def __post_init__(self) -> None:
        if "energy" not in self.properties or not set(self.properties) <= set(UNITS):
            raise ConfigError(
                f"properties={self.properties}: energy, and of {', '.join(UNITS)} what it gives"
            )
        if self.elements is not None and not self.elements <= set(range(1, len(SYMBOLS) + 1)):
            raise ConfigError(f"elements={sorted(self.elements)}: give atomic numbers 1..118")

    @property
    def units(self) -> dict[str, str]:
        """Unit of each property it gives."""
        return {name: UNITS[name] for name in self.properties}

    def lines(self) -> dict[str, str]:
        """The card as text for a report, one line a statement."""
        return {
            "elements": UNDECLARED if self.elements is None else _as_ranges(self.elements),
            "theory": self.theory,
            **({"dispersion": self.dispersion} if self.dispersion else {}),
            "training set": self.training_set,
            "energies": self.energies,
            **({"parameters": self.parameters} if self.parameters else {}),
            "units": "; ".join(f"{name} {unit}" for name, unit in self.units.items()),
            "source": self.source or UNDECLARED,
        }


def query_of(
    name: str, how: str, declarable: Sequence[str] = DECLARABLE
) -> tuple[dict[str, str], dict[str, str]]:
    """What stands behind the `?` of a subject's name: `key=value&card.theory=r2SCAN`.

    Args:
        how: how such a name is written.
        declarable: fields of a card that it may declare.
    Returns:
        What is asked for, and what is declared (keys without `card.`), as texts; %26 has become &.
    Raises:
        ConfigError: a part is no key=value, a key stands twice, or what is declared is no field of
            these or names no element.
    """
    asked: dict[str, str] = {}
    declared: dict[str, str] = {}
    query = name.partition("?")[2]
    for part in query.split("&") if query else []:
        key, equals, text = part.partition("=")
        field = key.removeprefix("card.")
        known = asked if field == key else declared
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", field):
            raise ConfigError(f"{part!r} in {name!r} is no key=value. {how}")
        if field in known:
            raise ConfigError(f"{key!r} is given twice in {name!r}; give it once")
        if known is declared and field not in declarable:
            raise ConfigError(
                f"{part!r} in {name!r} declares nothing; there are "
                f"{', '.join(f'card.{one}' for one in declarable)}"
            )
        known[field] = unquote(text)
    if "elements" in declared:
        elements_named(declared["elements"])
    return asked, declared


def elements_named(text: str) -> frozenset[int]:
    """Atomic numbers of "Al,Cu" or "H-Pu,Cm": symbols, and ranges by atomic number.

    Raises:
        ConfigError: a symbol is unknown, or a range runs backwards.
    """
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if first not in NUMBERS or (dash and last not in NUMBERS):
            raise ConfigError(f"{part!r} in {text!r} is no element; write Al,Cu or H-Pu")
        low, high = NUMBERS[first], NUMBERS[last if dash else first]
        if low > high:
            raise ConfigError(f"{part!r} in {text!r} runs backwards; write {last}-{first}")
        found.update(range(low, high + 1))
    return frozenset(found)


def _as_ranges(elements: Iterable[int]) -> str:
    numbers = sorted(elements)
    breaks = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b > a + 1]
    runs = np.split(np.array(numbers, dtype=int), breaks)
    named = [(SYMBOLS[run[0] - 1], SYMBOLS[run[-1] - 1]) for run in runs if len(run)]
    ranges = ", ".join(first if first == last else f"{first}-{last}" for first, last in named)
    return f"{ranges} ({len(numbers)})"
