"""The data set a session measures where no other is at hand: formation energies of our own PBE.

Source: computed by this project, fixtures/dft/README.md.  Licence: CC0-1.0.  Theory: PBE, no
correction of any kind, each energy at the minimum of its equation of state; compounds whose
elements are solids and whose anion no scheme corrects, so that all schemes agree on them.

Public: load, load_elements.
"""

from __future__ import annotations

from harness.data.crystals import Crystals
from harness.data.dataset import Dataset, cross_fitted
from harness.data.dft import FILE, load_dft

NAME = "embedded"
# The first of 0, 1, 2, ... that leaves the most tested rows all of whose elements are in two
# training rows or more. No model took part in the choice.
_SPLIT_SALT = "6"


def load() -> Dataset:
    """Compounds with formation energies from the project's own calculations, eV/atom.

    ids are "AlSc-CsCl": formula and prototype. Crystals are at the volume of the fitted minimum.
    Fold 0, the only one, is cross-fitted in five splits.

    Raises:
        DataError: the file is not the one described.
    """
    dft = load_dft()
    table = dft.formation_energies()
    compositions = table.crystals.compositions()
    return Dataset(
        name=NAME,
        ids=table.ids,
        target_ev_per_atom=table.e_form_ev_per_atom,
        crystals=table.crystals,
        compositions=compositions,
        inputs={FILE: dft.sha256},
        source="the project's own PBE calculations (fixtures/dft/README.md)",
        licence="CC0-1.0",
        is_subset=False,
        n_official=len(table),
        fold_splits=(cross_fitted(compositions, _SPLIT_SALT),),
    )


def load_elements() -> tuple[Crystals, dict[str, str]]:
    """The elements' crystals of the same calculations, one each, and what they were read from."""
    dft = load_dft()
    return dft.formation_energies().elements, {FILE: dft.sha256}
