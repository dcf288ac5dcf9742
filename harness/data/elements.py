"""Chemical symbols, atomic numbers, and the order in which a formula lists its elements."""

from __future__ import annotations

import numpy as np

_BY_NUMBER = """
    H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br
    Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho
    Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es
    Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """

# Rising Pauling electronegativity (ties by Z; without one, last), as formulas are usually written.
# Source: the values pymatgen 2026.10 carries; only their order is used, and only for display.
_BY_ELECTRONEGATIVITY = """
    Fr Cs K Rb Ba Ra Na Sr Li Ca La Tb Yb Ac Ce Pr Pm Nd Sm Eu Gd Y Dy Ho Er Tm Lu Pu Hf Th Am Cm
    Bk Cf Es Fm Md No Lr Mg Zr Sc Np U Ta Pa Ti Mn Be Nb Al Tl V Zn Cr Cd In Ga Fe Co Si Cu Tc Re
    Ni Ag Sn Hg Po Ge Bi B Sb Te Mo As P H Ru Pd Os Ir At Rn Rh Pt Pb W Au C Se S Xe I Br Kr N Cl O
    F He Ne Ar Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
    """

SYMBOLS: tuple[str, ...] = tuple(_BY_NUMBER.split())  # position is Z - 1

# Deuterium and tritium are hydrogen to every potential and reference used here.
NUMBERS: dict[str, int] = {s: z for z, s in enumerate(SYMBOLS, start=1)} | {"D": 1, "T": 1}


def reduced_formulas(compositions: np.ndarray) -> np.ndarray:
    """Formula of each row divided by its greatest common divisor, one string per composition.

    Args:
        compositions: (n, 118) whole numbers of atoms, column Z - 1, at least one atom a row.
    Returns:
        (n,) str, elements by rising electronegativity ("Fe2O3", "LiFePO4", "Si"). Two rows share
        a string exactly when one composition is a multiple of the other. Elements stay bare ("O",
        where some programs write "O2"), and there are no brackets ("Al2S3O12").
    """
    n = len(compositions)
    if n == 0:
        return np.empty(0, dtype="<U1")
    names = _BY_ELECTRONEGATIVITY.split()
    rank_of = np.empty(len(names), dtype=np.int64)
    rank_of[[NUMBERS[symbol] - 1 for symbol in names]] = np.arange(len(names))
    row, column = np.nonzero(compositions)
    rank = rank_of[column]
    order = np.lexsort((rank, row))
    rank, counts = rank[order], compositions[row, column][order].astype(np.int64)
    starts = np.searchsorted(row, np.arange(n))
    lengths = np.diff(np.append(starts, len(row)))
    counts //= np.repeat(np.gcd.reduceat(counts, starts), lengths)

    distinct, which = np.unique(counts * len(names) + rank, return_inverse=True)
    pairs = zip(*(part.tolist() for part in np.divmod(distinct, len(names))), strict=True)
    tokens = np.array([names[r] + (str(k) if k > 1 else "") for k, r in pairs], dtype=object)
    formulas = np.full(n, "", dtype=object)
    place = np.arange(len(row)) - np.repeat(starts, lengths)
    for k in range(int(lengths.max())):  # the k-th element of every row that has one
        here = place == k
        formulas[row[here]] += tokens[which[here]]
    return formulas.astype(str)
