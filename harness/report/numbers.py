"""Numbers as people read them: units, digits that do not mislead, durations, hashes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

EV_PER_ATOM = "eV/atom"
_MOST_DIGITS = 15  # of a float64; past them two numbers are equal


def number(value: float, unit: str = "", apart_from: Iterable[float | None] = ()) -> str:
    """A number without its unit: 4 decimals in eV/atom, 4 significant digits elsewhere.

    Args:
        apart_from: bounds. Digits are added until the number as shown lies on the same side of
            each as the number itself, so that a page never says `0.1100 < 0.11` was refuted.
    """
    bounds = [b for b in apart_from if b is not None and math.isfinite(b)]
    for digits in range(4, _MOST_DIGITS + 1):
        shown = _rounded(value, unit, digits)
        read = float(shown.replace(",", ""))
        if all((read < b, read > b) == (value < b, value > b) for b in bounds):
            return shown
    return repr(value)


def _rounded(value: float, unit: str, digits: int) -> str:
    size = abs(value)
    if value == 0:
        return "0.0000" if unit == EV_PER_ATOM else "0"
    if unit == EV_PER_ATOM and 0.5e-4 <= size < 1e4:
        return f"{value:.{digits}f}"
    if 1e4 <= size < 1e9:
        return f"{value:,.{digits - 4}f}"
    return f"{value:.{digits}g}"


@dataclass(frozen=True)
class Scale:
    """How the numbers of one record are written: one unit, and as many decimals for all of them.

    The interval's width decides: two of its digits are told, so that a page shows neither more than
    is known nor ends that look alike. Energies below 0.01 eV are told in meV.
    """

    unit: str
    factor: float  # from the record's unit to this one
    decimals: int | None  # None: nothing was sampled, and four digits are told
    apart_from: tuple[float, ...]  # bounds, in the record's unit

    @classmethod
    def of(
        cls,
        values: Iterable[float | None],
        unit: str,
        bounds: Iterable[float | None] = (),
        beside: Iterable[float | None] = (),
    ) -> Scale:
        """
        Args:
            values: what was observed, and the ends of its interval.
            bounds: a number as shown lies on the same side of each as the number itself.
            beside: numbers that are read together with these, and so in the same unit.
        """
        known = [v for v in values if v is not None and math.isfinite(v)]
        ends = tuple(b for b in bounds if b is not None and math.isfinite(b))
        largest = max((abs(v) for v in (*known, *beside) if v is not None), default=0.0)
        small = unit.startswith("eV") and 0 < largest < 0.01
        factor = 1000.0 if small else 1.0
        width = factor * (max(known) - min(known)) if known else 0.0
        decimals = None
        if width > 0:
            decimals = min(max(1 - math.floor(math.log10(width)), 0), _MOST_DIGITS)
        return cls(f"m{unit}" if small else unit, factor, decimals, ends)

    def text(self, value: float) -> str:
        """A value of the record, without its unit."""
        for more in range(_MOST_DIGITS):
            shown = self._rounded(self.factor * value, more)
            read = float(shown.replace(",", ""))
            bounds = [(b, self.factor * b) for b in self.apart_from]
            if all((read < s, read > s) == (value < b, value > b) for b, s in bounds):
                return shown
        return repr(self.factor * value)

    def _rounded(self, value: float, more: int) -> str:
        if self.decimals is None or (value and abs(value) >= 1e9):
            return _rounded(value, "", 4 + more)
        if 0 < abs(value) < 0.5 * 10.0 ** -min(self.decimals + more, _MOST_DIGITS):
            return f"{value:.{2 + more}g}"
        grouped = "," if abs(value) >= 1e4 else ""
        return f"{value:{grouped}.{self.decimals + more}f}"

    def bound(self, low: float | None, high: float | None) -> str:
        """A bound in this unit: `< 0.11 eV/atom`, `0.9 to 1.1`."""
        ends = [None if end is None else f"{self.factor * end:.10g}" for end in (low, high)]
        words = (
            f"{ends[0]} to {ends[1]}"
            if None not in ends
            else f"< {ends[1]}"
            if ends[0] is None
            else f"> {ends[0]}"
        )
        return f"{words} {self.unit}".strip()


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 12 s`, `1 h 04 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share(part: int, of: int) -> str:
    """`98.3 %`; 100 % and 0 % only where they are exact."""
    if part in (0, of) or not of:
        return "100 %" if part and part == of else "0 %"
    return f"{min(max(100 * part / of, 0.1), 99.9):.1f} %"


def percent(value: float) -> str:
    """A share as `22 %`, `1.2 %`, `1,240 %`; `less than 0.01 %` rather than a row of zeros."""
    if 0 < value < 1e-4:
        return "less than 0.01 %"
    return f"{100 * value:,.0f} %" if value >= 0.0995 else f"{100 * value:.2g} %"


def times(value: float) -> str:
    """A multiple with two digits, as far as they say something: `0.054`, `1.2`, `2,209`."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


# Suffixes of names that carry their unit, longest first.
_SUFFIXES = {
    "_ev_per_atom": "eV/atom",
    "_mev_per_atom": "meV/atom",
    "_ev_per_ang3": "eV/Å³",
    "_ev_per_ang": "eV/Å",
    "_percent": "%",
    "_seconds": "s",
    "_minutes": "min",
    "_kelvin": "K",
    "_ang3": "Å³",
    "_gpa": "GPa",
    "_ang": "Å",
    "_mib": "MiB",
    "_gib": "GiB",
    "_fs": "fs",
    "_ev": "eV",
}


def label(name: str) -> str:
    """A field's name as a heading: `mae_ev_per_atom` is `mae (eV/atom)`."""
    for suffix, unit in _SUFFIXES.items():
        if name.endswith(suffix) and name != suffix:
            return f"{name.removesuffix(suffix).replace('_', ' ')} ({unit})"
    return name.replace("_", " ").strip() or name
