"""From total energy to formation energy.

A potential's total energy is no formation energy: a fixed energy of each element has to come off.
Declared ways of choosing those energies, reported side by side because the choice moves the MAE:

mp2020   the elemental references of the Materials Project's MP2020 scheme, from a table
self     the subject's own energy of each element's standard-state crystal; needs no table
refit    a per-element linear refit on training rows only, least absolute deviations
none     nothing comes off: total energies as they are, the fault every control plants
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from harness.engines import engine
from harness.errors import CannotResolve, DataError

ALIGNMENTS = ("mp2020", "self", "refit")
# Of the refit: raise it when a change here moves an energy.
ENGINE = engine("refit", "1")
QUANTILE = 0.5  # the median: least absolute deviations


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """Energies of the elements, to be taken off a total energy."""

    name: str
    energies_ev_per_atom: np.ndarray  # (118,) column Z - 1, nan where the element has none
    inputs: Mapping[str, str] = field(default_factory=dict)  # file -> sha256, where it has one

    def formation_energies(
        self, total_ev_per_atom: np.ndarray, compositions: np.ndarray
    ) -> np.ndarray:
        """(n,) eV/atom; nan where the row holds an element without a reference.

        Args:
            total_ev_per_atom: (n,) total energies, eV/atom.
            compositions: (n, 118) element counts, any scale.
        """
        fractions = compositions / compositions.sum(axis=1, keepdims=True)
        known = np.nan_to_num(self.energies_ev_per_atom)
        aligned = total_ev_per_atom - fractions @ known
        return np.where(self.covers(compositions), aligned, np.nan)

    def covers(self, compositions: np.ndarray) -> np.ndarray:
        """(n,) bool, True where every element of the row has a reference."""
        absent = np.isnan(self.energies_ev_per_atom)
        return np.asarray((compositions[:, absent] <= 0).all(axis=1))

    def missing(self, compositions: np.ndarray) -> list[int]:
        """Atomic numbers that occur in these rows and have no reference."""
        occurs = (compositions > 0).any(axis=0)
        return (np.flatnonzero(occurs & np.isnan(self.energies_ev_per_atom)) + 1).tolist()


NO_REFERENCES = References(name="none", energies_ev_per_atom=np.zeros(118))


def refit(
    total_ev_per_atom: np.ndarray, target_ev_per_atom: np.ndarray, compositions: np.ndarray
) -> References:
    """Elemental energies that best turn these totals into these targets, in the L1 sense.

    Least absolute deviations, because a few mislabelled rows pull a least-squares fit for every
    element they contain. Elements that occur in no row get none.

    Args:
        total_ev_per_atom: (n,) finite total energies of training rows.
        target_ev_per_atom: (n,) finite formation energies of the same rows.
        compositions: (n, 118) element counts of the same rows.
    Raises:
        CannotResolve: no rows.
        DataError: a value that is not finite.
    """
    from scipy.sparse import csc_array
    from sklearn.linear_model import QuantileRegressor

    shift = np.asarray(total_ev_per_atom) - np.asarray(target_ev_per_atom)
    if len(shift) == 0:
        raise CannotResolve(
            "the subject has an energy for none of the training rows, and a refit of the elements' "
            "energies needs at least one. Score rows of elements that it knows."
        )
    if not np.isfinite(shift).all():
        raise DataError(
            f"{int((~np.isfinite(shift)).sum())} of {len(shift)} training rows are not finite, and "
            "a refit takes finite energies only"
        )
    fractions = compositions / compositions.sum(axis=1, keepdims=True)
    seen = np.flatnonzero((fractions > 0).any(axis=0))
    median = QuantileRegressor(quantile=QUANTILE, alpha=0.0, fit_intercept=False, solver="highs")
    median.fit(csc_array(fractions[:, seen]), shift)
    energies = np.full(compositions.shape[1], np.nan)
    energies[seen] = median.coef_
    return References(name="refit", energies_ev_per_atom=energies)


def refit_settings() -> dict[str, str]:
    """What a refit depends on beside its rows: under these settings the store keeps it."""
    return {
        "engine": ENGINE,
        "quantile": str(QUANTILE),
        "scikit-learn": version("scikit-learn"),
        "scipy": version("scipy"),  # its solver
    }
