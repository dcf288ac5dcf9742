"""Habits shared by adapters of other people's code: its warnings, its words, its gaps.

The first two of what is public stand where they are needed without this package.

Public: others_warnings, words, not_known, refuse, check_properties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.data.elements import SYMBOLS
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.ase_worker import others_warnings, words
from harness.models.cards import UNITS

__all__ = ["check_properties", "not_known", "others_warnings", "refuse", "words"]

if TYPE_CHECKING:
    from harness.data.crystals import Crystals
    from harness.models.cards import Card


def not_known(crystals: Crystals, elements: frozenset[int]) -> dict[int, str]:
    """Row -> which of its elements are not among these."""
    strange = np.flatnonzero(~np.isin(crystals.numbers, sorted(elements)))
    found: dict[int, set[int]] = {}
    for row, number in zip(
        crystals.row_of_atom[strange].tolist(), crystals.numbers[strange].tolist(), strict=True
    ):
        found.setdefault(row, set()).add(number)
    return {
        row: f"{' '.join(SYMBOLS[z - 1] for z in sorted(numbers))} not among the declared elements"
        for row, numbers in found.items()
    }


def check_properties(name: str, card: Card, properties: Sequence[str]) -> None:
    """Refuse what is no property, and what this subject does not give.

    Raises:
        ConfigError: not a sequence of known properties.
        NotAvailable: the subject gives no such property; the message names both.
    """
    if isinstance(properties, str) or not set(properties) <= set(UNITS):
        raise ConfigError(
            f"properties={properties!r}; there are {', '.join(UNITS)}, asked for as a tuple."
        )
    if absent := [p for p in properties if p not in card.properties]:
        raise NotAvailable(
            f"{name} gives no {', '.join(absent)}, only {', '.join(card.properties)}. Use another "
            "--model for what needs it."
        )


def refuse(name: str, problems: Mapping[int, str]) -> None:
    """Raises ModelError naming the rows, if there are any."""
    if problems:
        listed = "; ".join(f"row {row}: {problems[row]}" for row in list(problems)[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ModelError(
            f"{name} could not score {len(problems)} rows: {listed}{more}. Leave them out; "
            "predict() gives nan and the reason for such rows."
        )
