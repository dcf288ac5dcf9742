"""What the MP2020 scheme adds to a raw VASP energy of the Materials Project's settings.

The scheme wants to know how each energy was computed, and an XYZ file does not say. Here that is
taken from the Materials Project's own input rules: +U on V, Cr, Mn, Fe, Co, Ni, Mo and W where the
most electronegative element is O or F, and nowhere else. A set computed by other rules gets wrong
corrections from this. Whether oxygen counts as oxide, peroxide or superoxide is read off distances
between atoms, and strong compression can turn one into another.

Anions are corrected as the scheme was published, without the later restriction to oxidation states
of -1 and below: energies that potentials were trained on until then carry these.

Source: A. Wang et al., Sci. Rep. 11, 15496 (2021), as implemented in pymatgen.

Public: ENGINE, corrections_ev_per_atom, pymatgen_version.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from harness.data.crystals import Crystals

ENGINE = "1"  # raise it when a number this gives changes
_LARGEST_TO_GUESS = 20  # atoms in the reduced formula, as pymatgen itself limits the guess


def pymatgen_version() -> str:
    """Version of the package the corrections come from."""
    return version("pymatgen")


def corrections_ev_per_atom(crystals: Crystals) -> np.ndarray:
    """(n,) float64 to be added to raw energies, eV/atom; mostly negative, zero for elements.

    About 3 ms a row, and up to 0.1 s for a formula of eight or more elements.
    """
    with warnings.catch_warnings():
        # pymatgen's words about noble gases and about guesses that fail: the scheme then corrects
        # the most electronegative element only, which is what it is meant to do.
        warnings.filterwarnings("ignore", message="No Pauling electronegativity")
        warnings.filterwarnings("ignore", message="Failed to guess oxidation states")
        return _corrections(crystals)


def _corrections(crystals: Crystals) -> np.ndarray:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedEntry

    scheme = MaterialsProject2020Compatibility(check_potcar=False, strict_anions="no_check")
    guesses: dict[str, dict[str, float]] = {}
    found = np.empty(len(crystals))
    for row, formula in enumerate(crystals.reduced_formulas().tolist()):
        structure = crystals.structure(row)
        composition = structure.composition
        if formula not in guesses:
            guesses[formula] = _oxidation_states(composition)
        with_u = _elements_with_u(scheme, composition)
        entry = ComputedEntry(
            composition,
            0.0,
            parameters={"run_type": "GGA+U" if with_u else "GGA", "hubbards": with_u},
            data={"oxidation_states": guesses[formula], **_anion_types(structure)},
        )
        total = sum(adjustment.value for adjustment in scheme.get_adjustments(entry))
        found[row] = total / len(structure)
    return found


def _oxidation_states(composition: Any) -> dict[str, float]:
    """pymatgen's first guess, as the scheme itself makes it; none for large formulas."""
    try:
        return dict((composition.oxi_state_guesses(max_sites=-_LARGEST_TO_GUESS) or ({},))[0])
    except ValueError:  # too many atoms to guess
        return {}


def _elements_with_u(scheme: Any, composition: Any) -> dict[str, float]:
    """Element -> U, eV, by the Materials Project's input rules."""
    by_negativity = sorted(composition.elements, key=lambda element: element.X)
    settings = scheme.u_settings.get(by_negativity[-1].symbol, {})
    present = {element.symbol for element in composition.elements}
    return {symbol: u for symbol, u in settings.items() if symbol in present}


def _anion_types(structure: Structure) -> dict[str, str]:
    from pymatgen.analysis.structure_analyzer import oxide_type, sulfide_type

    symbols = {element.symbol for element in structure.composition.elements}
    if len(symbols) == 1:
        return {}  # nothing is corrected
    types: dict[str, str] = {}
    if "O" in symbols:
        types["oxide_type"] = str(oxide_type(structure, 1.05))
    if "S" in symbols:
        # None, where sulphur is no anion, would be read as "not given" and then as "sulfide"
        types["sulfide_type"] = sulfide_type(structure) or "none"
    return types
