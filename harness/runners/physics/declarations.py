"""The elements a subject names, and what it says of itself, against what it does.

Public: elements, declarations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from harness.claims import Interval, Measurement
from harness.data.elements import SYMBOLS
from harness.data.random_crystals import elemental_crystals
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import NotAvailable
from harness.models.cards import UNDECLARED
from harness.models.protocol import Model
from harness.store import MakeProgress, PredictionStore

from .found import VERSION, Found
from .search import Refused
from .subject import Subject, declared_elements, digest

_NAMED = 3  # elements that a counterexample names, of those without finite outputs


def elements(
    model: Model, store: PredictionStore, progress: MakeProgress | None = None
) -> Measurement:
    """The share of the elements the subject claims whose crystal has no finite outputs.

    One crystal of every element; energies, and forces and stress where the subject offers them.
    A stated problem counts like a number that is not finite: the subject claims the element. Every
    element is asked, so nothing is sampled, and one that is missing is a counterexample.
    """
    numbers = declared_elements(model)

    def compute() -> dict[str, np.ndarray]:
        z, crystals, sources = elemental_crystals(numbers)
        tick = None if progress is None else progress("physics: elements", len(crystals))
        subject = Subject(model, optional=("forces", "stress"))
        problems: dict[str, str] = {}
        for number, row in zip(z.tolist(), crystals, strict=True):
            try:
                subject.all(row)
            except Refused as refusal:
                problems[SYMBOLS[number - 1]] = str(refusal)
            if tick is not None:
                tick(1)
        found = {
            "problems": problems,
            "absent": subject.absent,
            "without_a_real_crystal": [
                SYMBOLS[number - 1]
                for number, source in zip(z.tolist(), sources, strict=True)
                if source != "fixtures"
            ],
        }
        return {"found": np.array(json.dumps(found))}

    key = {"procedure": f"physics.elements {VERSION}", "elements": digest(numbers)}
    found = json.loads(str(store.arrays(model.identity, key, compute)["found"]))
    problems = found["problems"]
    named = "; ".join(f"{symbol}: {why}" for symbol, why in list(problems.items())[:_NAMED])
    more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return Measurement(
        quantity="share of elements whose crystal has no finite energy, forces or stress",
        interval=Interval.exact(len(problems) / len(numbers), n=len(numbers)),
        scored=len(numbers),
        of=len(numbers),
        dataset="elemental crystals",
        model=model.identity.name,
        inputs={model.identity.name: model.identity.weights_sha256},
        counterexample=named + more,
        details=found,
    )


# What a factor between the reported and the measured says.
_FACTORS = {
    "the sign is reversed": -1.0,
    "eV/Å³ instead of GPa": 1 / GPA_PER_EV_ANG3,
    "eV/Å³ instead of GPa, and the sign is reversed": -1 / GPA_PER_EV_ANG3,
    "kbar instead of GPa": 10.0,
    "kbar instead of GPa, and the sign is reversed": -10.0,
    "hartree/bohr instead of eV/Å": 0.529177210903 / 27.211386245988,
}
_CLOSE = 0.02  # of a factor: medians of many crystals agree far better


def declarations(
    model: Model, store: PredictionStore, derivatives: Sequence[Found], said: Sequence[str]
) -> Measurement:
    """How much of what a user has to know of a subject it leaves out, or says wrongly.

    Args:
        derivatives: what `run` found for "forces" and "stress", by which units and signs are
            compared with what the protocol says; a property that is not offered is left out.
        said: fields of the subject's card that must say something.
    """
    card = model.card
    wrong = {name: UNDECLARED for name in said if getattr(card, name) in ("", UNDECLARED)}
    if card.elements is None:
        wrong["elements"] = UNDECLARED
    known = sorted(card.elements or ())
    unknown = sorted(set(range(1, len(SYMBOLS) + 1)) - set(known))[:1] if known else []
    for z in unknown:
        _, crystal, _ = elemental_crystals([z])
        if not model.predict(crystal).problems:
            wrong["elements"] = f"{SYMBOLS[z - 1]} is not declared, and is given an energy"
    offers = card.properties if known else ()
    for name in offers:
        _, crystal, _ = elemental_crystals(known[:1])
        try:
            if getattr(model.predict(crystal, ("energy", name)), name) is None:
                wrong[name] = "the card offers it, and it is not given"
        except NotAvailable as error:
            wrong[name] = f"the card offers it: {error}"
    factors: dict[str, float] = {}
    for found in derivatives:
        for name, factor in found.ratio.items():
            factors[name] = factor
            if abs(factor - 1) > _CLOSE:
                wrong[f"unit of {name}"] = _explain(factor)
    n = len(said) + 1 + len(unknown) + len(offers) + len(factors)
    return Measurement(
        quantity="declarations that are missing, or contradicted by what the subject does",
        interval=Interval.exact(len(wrong), n=n),
        scored=n,
        of=n,
        dataset="declarations",
        model=model.identity.name,
        inputs={model.identity.name: model.identity.weights_sha256},
        details={
            "wrong": wrong,
            "card": card.lines(),
            "reported_over_measured": factors,
        },
    )


def _explain(factor: float) -> str:
    for words, known in _FACTORS.items():
        if abs(factor / known - 1) < _CLOSE:
            return f"{factor:.4g} times what energies say: {words}"
    return f"{factor:.4g} times what energies say"
