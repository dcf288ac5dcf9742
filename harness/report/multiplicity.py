"""Many verdicts at once: how probable each is by chance, and which survive all of them together.

A verdict at 95 % is wrong in one of forty cases where the truth lies on the bound, since only one
side of its interval faces it. Of a hundred such verdicts two or three would be. Holm's procedure
says which findings are clear enough that, in a session like this, not even one would be wrong with
more than that chance. It changes no verdict: the bound decides those, one by one.

Public: chance, holm, summary, LEVEL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from harness.claims import Kind, Verdict
from harness.evidence import Evidence

LEVEL = 0.025  # of one side of a 95 % interval


def chance(evidence: Evidence) -> float | None:
    """Probability of an interval so clear of the bound if the truth lay on the bound, one-sided.

    The distance to the bound is measured in half-widths of the side that faces it, and a half-width
    is what Student's t says a 95 % interval has. Where nothing was sampled there is no chance; None
    is a record that its interval did not decide.
    """
    if evidence.verdict not in (Verdict.HELD, Verdict.REFUTED) or evidence.observed is None:
        return None
    low, high = evidence.ci_low, evidence.ci_high
    if low is None or high is None:
        return None
    below, above = evidence.bound_low, evidence.bound_high
    observed = evidence.observed
    # (distance to the bound, half-width of the side that faces it), of every end that decides
    if evidence.verdict == Verdict.HELD:
        sides = [(above - observed, high - observed)] if above is not None else []
        sides += [(observed - below, observed - low)] if below is not None else []
    elif above is not None and low >= above:
        sides = [(observed - above, observed - low)]
    elif below is not None and high <= below:
        sides = [(below - observed, high - observed)]
    else:
        return None  # one counterexample refutes, whatever the interval
    if evidence.ci_method == "exact":
        return 0.0
    units = evidence.effective or evidence.n_clusters
    return max(_tail(distance, half, units) for distance, half in sides)


def _tail(distance: float, half_width: float, units: float) -> float:
    from scipy.special import stdtr, stdtrit

    freedom = max(units - 1, 1)
    if half_width == 0:
        return 0.0 if distance > 0 else 0.5
    quantile = float(stdtrit(freedom, 1 - LEVEL))
    return float(stdtr(freedom, -distance / half_width * quantile))


def holm(evidence: Iterable[Evidence]) -> list[Evidence]:
    """The records with `chance` filled in, and `survives_holm` of findings that were decided.

    The family is all findings whose interval decided them, controls left out. What was not sampled
    survives, and makes it no harder for the others.

    Source: S. Holm, Scandinavian Journal of Statistics 6, 65 (1979).
    """
    with_chance = [replace(e, chance=chance(e), survives_holm=None) for e in evidence]
    family = [
        (e.chance, i)
        for i, e in enumerate(with_chance)
        if e.kind == Kind.FINDING and not e.control and e.chance is not None
    ]
    survives = True
    for place, (value, i) in enumerate(sorted(family)):
        survives = survives and value <= LEVEL / (len(family) - place)
        with_chance[i] = replace(with_chance[i], survives_holm=survives)
    return with_chance


def summary(evidence: Iterable[Evidence]) -> dict[str, Any]:
    """How many verdicts an interval decided, how many of them chance alone could, and which.

    Args:
        evidence: as `holm` returned it. Controls, and what was not sampled, are not counted.
    """
    decided = [
        e for e in evidence if not e.control and e.chance is not None and e.ci_method != "exact"
    ]
    findings = [e for e in decided if e.kind == Kind.FINDING]
    return {
        "decided": len(decided),
        "by_chance": round(LEVEL * len(decided), 3),
        "findings": len(findings),
        "not_surviving": [e.key for e in findings if e.survives_holm is False],
    }
