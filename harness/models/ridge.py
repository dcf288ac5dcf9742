"""Ridge regression pulled towards an anchor: the smallest kind of fine-tuning there is.

Public: Ridge, refit_towards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import ConfigError, DataError
from harness.models.alignment import References


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """Least squares pulled towards an anchor: minimises |X w - y|² + λ |w - anchor|².

    With an anchor of zero this is plain ridge regression, training from scratch; with a pretrained
    solution as the anchor it is fine-tuning. λ is the one of the grid with the smallest exact
    leave-one-out error on the training rows, so that neither is tuned by hand.
    """

    lambdas: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-16, 5))

    def __post_init__(self) -> None:
        if not self.lambdas or min(self.lambdas) <= 0:
            raise ConfigError(f"{self}: give at least one λ, and only positive ones")

    def fit(self, x: np.ndarray, y: np.ndarray, anchor: np.ndarray | None = None) -> np.ndarray:
        """(k,) weights.

        Args:
            x: (n, k) features, n >= 2; (n,) targets ``y``.
            anchor: (k,) what the weights are pulled towards; zero if None.
        Raises:
            DataError: fewer than two rows, or a value is not finite.
        """
        if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError(f"{len(x)} rows: a fit needs at least two, and only finite values")
        start = np.zeros(x.shape[1]) if anchor is None else anchor
        residual = y - x @ start
        # All λ from one decomposition: the hat matrix is U s²/(s² + λ) Uᵀ, and a left-out row's
        # error is its residual over one minus its leverage.
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        projected = u.T @ residual
        errors = []
        for strength in self.lambdas:
            shrink = s**2 / (s**2 + strength)
            leverage = np.einsum("ij,j,ij->i", u, shrink, u)
            left_out = (residual - u @ (shrink * projected)) / np.maximum(1 - leverage, 1e-12)
            errors.append(float(np.mean(left_out**2)))
        best = self.lambdas[int(np.argmin(errors))]
        return np.asarray(start + vt.T @ (s / (s**2 + best) * projected))


def refit_towards(
    references: References,
    total_ev_per_atom: np.ndarray,
    target_ev_per_atom: np.ndarray,
    compositions: np.ndarray,
) -> References:
    """Elemental energies that turn these totals into these targets, pulled towards known ones.

    As `alignment.refit`, but by least squares and for few rows: an element that hardly occurs keeps
    about the energy it has.

    Args:
        total_ev_per_atom: (n,) total energies of training rows; rows with nan are left out.
        target_ev_per_atom: (n,) finite formation energies of the same rows.
        compositions: (n, 118) element counts, of elements that ``references`` has.
    Raises:
        DataError: fewer than two rows with a finite total, or an element without a reference.
    """
    off = references.formation_energies(total_ev_per_atom, compositions) - target_ev_per_atom
    use = np.isfinite(total_ev_per_atom)
    fractions = compositions[use] / compositions[use].sum(axis=1, keepdims=True)
    moved = Ridge().fit(fractions, off[use])
    return References(
        name=f"{references.name}, refitted",
        energies_ev_per_atom=references.energies_ev_per_atom + moved,
        inputs=references.inputs,
    )
