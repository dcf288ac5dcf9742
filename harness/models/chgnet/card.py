"""What CHGNet's authors say of each version.

Source: the notes beside the weights in the chgnet package; Deng et al., Nature Machine Intelligence
5, 1031 (2023); for r2scan Huang et al., "Cross-functional transferability in foundation machine
learning interatomic potentials", npj Computational Materials (2025).

Public: card_of.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.models.cards import UNDECLARED, UNITS, Card

_ELEMENTS = frozenset(range(1, 95))  # rows of the embedding, H to Pu; MPtrj holds 89 of them
_PBE = {
    "theory": "PBE, and PBE+U for oxides and fluorides of Co, Cr, Fe, Mn, Mo, Ni, V, W",
    "training_set": "MPtrj (1.58 million frames of Materials Project relaxations), 90 %",
    "energies": "total energies with MP2020 corrections; not formation energies",
}
_DECLARED = {
    "chgnet-0.3.0": _PBE,
    "chgnet-0.2.0": _PBE,
    "chgnet-r2scan": {
        "theory": "r2SCAN",
        "training_set": "MPtrj (as 0.3.0), then fine-tuned on 80 % of MP-r2SCAN",
        "energies": "total energies of r2SCAN; MP2020 corrections are fitted to PBE and do not "
        "belong to them",
    },
}


def card_of(name: str, declared: Mapping[str, str] | None = None) -> Card:
    """The card of a version; of any other network what is declared for it, since it cannot say."""
    unknown = {"theory": UNDECLARED, "training_set": UNDECLARED, "energies": UNDECLARED}
    if name in _DECLARED:
        said, source = _DECLARED[name], "the notes beside the weights in the chgnet package"
    else:
        said, source = unknown | dict(declared or {}), "its name" if declared else ""
    return Card(elements=_ELEMENTS, properties=tuple(UNITS), source=source, **said)
