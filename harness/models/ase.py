"""Any ASE calculator as a subject: `ase:package.module:Factory?key=value&key2=value2`.

The factory (a class, or anything else that returns a calculator) is called with the keyword
arguments of the query. A value is an integer (3), a float (0.5, 1e-3), a boolean (true, false), a
JSON list or table, or else a string; "3" in double quotes stays a string, and %26 stands for an &
inside a value. Where the factory has a parameter `device` that the query leaves out, it gets what
--device chose. `card.elements=Al,Cu` (or H-Pu), `card.theory=`, `card.training_set=`,
`card.energies=` and `card.dispersion=` declare what a calculator cannot say of itself, and
`card.properties=energy,forces` corrects one that says too much. `threads=` of torch's a crystal
gets (1), `workers=` processes compute side by side, and a crystal may take `timeout_seconds=` in
one of them; the factory sees none of these.

`ase_worker.py` makes the calculator and asks it, here or in processes that `remote.py` starts: of
another interpreter where one is named, and several where that pays.

Public: AseModel, AseSpec, PREFIX, parse, resolve, load, subject.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.elements import SYMBOLS
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.ase_worker import HOW, METHODS, Raised, Refused, hold, make
from harness.models.ase_worker import resolve as _resolved
from harness.models.cards import DECLARABLE, UNITS, Card, elements_named, query_of
from harness.models.foreign import check_properties, not_known, refuse
from harness.models.packing import packed
from harness.models.protocol import Identity, Prediction
from harness.models.remote import Here, Workers, interpreter

if TYPE_CHECKING:
    from harness.data.crystals import Crystals

PREFIX = "ase:"
ENGINE = "1"  # raise it when a number this adapter gives changes
ATOMS_PER_BATCH = 1024  # of a calculator that takes a second for ten atoms: two minutes' work

Value = int | float | bool | str | list[Any] | dict[str, Any]
_NAME = r"[A-Za-z_]\w*"
_SPEC = re.compile(rf"(?P<module>{_NAME}(\.{_NAME})*):(?P<factory>{_NAME}(\.{_NAME})*)")
_RUN = {"threads": 1, "workers": 1, "timeout_seconds": 1e-3}  # how it runs: the least of each
_TIMEOUT_SECONDS = 3600.0
_MOVES_NO_NUMBER = ("workers", "timeout_seconds")
_ERRORS = {"config": ConfigError, "absent": NotAvailable, "failed": ModelError}


@dataclass(frozen=True, kw_only=True)
class AseSpec:
    """What a name says: which factory, its arguments, what is declared, and how it runs."""

    name: str  # without what moves no number
    module: str
    factory: str  # dotted where it is a class method
    arguments: Mapping[str, Value]
    declared: Mapping[str, str]
    run: Mapping[str, float]  # of _RUN, what the name gives

    def request(self, device: str) -> dict[str, Any]:
        """What `ase_worker.make` asks for."""
        return {
            "name": self.name,
            "module": self.module,
            "factory": self.factory,
            "arguments": dict(self.arguments),
            "device": device,
            "threads": self.run.get("threads", 1),
            "reserved": list(self.run),
            "path": [],
        }


def parse(name: str) -> AseSpec:
    """The parts of an `ase:` name; nothing is imported.

    Raises:
        ConfigError: it is not of that form, a key is given twice, or an element is unknown.
    """
    target, _, query = name.removeprefix(PREFIX).partition("?")
    match = _SPEC.fullmatch(target)
    if not name.startswith(PREFIX) or match is None:
        raise ConfigError(f"{name!r} names no ASE calculator. {HOW}.")
    asked, declared = query_of(name, f"{HOW}.", ("elements", *DECLARABLE, "properties"))
    kept = [part for part in query.split("&") if part.partition("=")[0] not in _MOVES_NO_NUMBER]
    return AseSpec(
        name=f"{PREFIX}{target}{'?' if any(kept) else ''}{'&'.join(kept)}",
        module=match["module"],
        factory=match["factory"],
        arguments={key: _value(text) for key, text in asked.items() if key not in _RUN},
        declared=declared,
        run={key: _how_it_runs(key, text) for key, text in asked.items() if key in _RUN},
    )


def _how_it_runs(key: str, text: str) -> float:
    given, least = _value(text), _RUN[key]
    kinds = (int, float) if key == "timeout_seconds" else (int,)
    if type(given) not in kinds or not least <= given <= 1e9:  # type: ignore[operator]
        raise ConfigError(f"{key}={text}: give a number, at least {least:g}")
    return given  # type: ignore[return-value]


def _value(text: str) -> Value:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d{1,999}", text):  # Python converts no more than some thousand digits
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{text!r} is no list or table of JSON ({error}). A string that begins so stands "
                "in double quotes"
            ) from None
    return text


def resolve(spec: AseSpec) -> Any:
    """The factory itself, imported, and known to take these arguments.

    Raises:
        NotAvailable: its package, or one that it imports, is not installed.
        ConfigError: the package has no such module or factory, or the factory takes no such
            argument.
    """
    with _refusals():
        return _resolved(spec.request("cpu"))


def load(name: str, device: str = "auto", python: str | None = None) -> AseModel:
    """The calculator of an `ase:` name as a subject.

    Args:
        name: `ase:package.module:Factory?key=value`, see the top of this module.
        device: for factories that have such a parameter: `cpu`, `cuda`, or `auto`.
        python: the interpreter of another environment, which then computes; by default this one.
    Raises:
        ConfigError: the name, an argument or the interpreter is wrong; the message says which.
        NotAvailable: a package or a program that the calculator needs is not installed.
        ModelError: the calculator could not be made for another reason.
    """
    spec = parse(name)
    request = spec.request(device)
    count = spec.run.get("workers")
    how: dict[str, Any] = {
        "count": None if count is None else int(count),
        "timeout_seconds": spec.run.get("timeout_seconds", _TIMEOUT_SECONDS),
    }
    source: Here | Workers
    with _refusals():
        if python is not None:
            source = Workers(interpreter(python), request, **how)
        else:
            held = make(request)
            here = request | {"path": sys.path}
            source = Here(held, Workers(sys.executable, here, facts=held.facts, **how))
    facts = source.facts
    declared = dict(spec.declared)
    elements = elements_named(declared.pop("elements")) if "elements" in declared else None
    implemented = set(facts["implemented"])
    properties = tuple(p for p in UNITS if p == "energy" or p in implemented)
    if "properties" in declared:
        properties = tuple(declared.pop("properties").split(","))
        if not {*properties, "energy"} <= {*implemented, "energy"}:
            raise ConfigError(
                f"card.properties={','.join(properties)}: {facts['class']} gives "
                f"{', '.join(p for p in UNITS if p in implemented)}. Declare what it gives."
            )
    return AseModel(
        source,
        identity=_identity(spec, facts),
        card=Card(
            elements=elements,
            properties=properties,
            parameters=facts["settings"]["parameters"],
            source="the query of its name" if spec.declared else "",
            **declared,
        ),
    )


def subject(
    calculator: Any, *, name: str, card: Card, settings: Mapping[str, str] | None = None
) -> AseModel:
    """A calculator that is there already as a subject, computed in this process.

    Args:
        calculator: of ASE's kind; torch's parameters in it are found and hashed.
        name: what it is called and addressed by.
        card: what it declares, properties among it.
        settings: whatever else moves a number: a version, a file's hash.
    """
    held = hold(calculator)
    return AseModel(
        Here(held),
        identity=Identity(
            name=name,
            weights_sha256=_known_by(held.facts),
            settings={"engine": ENGINE, **held.facts["settings"], **(settings or {})},
        ),
        card=replace(card, parameters=held.facts["settings"]["parameters"]),
    )


@contextmanager
def _refusals(who: str = "") -> Iterator[None]:
    """What a calculator's process refuses, as an error of the project."""
    try:
        yield
    except Refused as error:
        raise _ERRORS[error.kind](f"{who}{error}.") from error


def _identity(spec: AseSpec, facts: Mapping[str, Any]) -> Identity:
    """Import path, arguments, versions, the code itself, its parameters and the files it names."""
    return Identity(
        name=spec.name,
        weights_sha256=_known_by(facts),
        settings={
            "engine": ENGINE,
            **facts["settings"],
            "elements": spec.declared.get("elements", ""),
        },
        stored_as=f"{PREFIX}{spec.module}:{spec.factory}",
    )


def _known_by(facts: Mapping[str, Any]) -> str:
    """The hash of its parameters; where none were found of what else there is, and that it is."""
    settings = json.dumps(facts["settings"], sort_keys=True)
    code_and_arguments = hashlib.sha256(settings.encode()).hexdigest()
    return facts["parameters_sha256"] or (
        f"{code_and_arguments} of code and arguments: no parameters were found"
    )


# --- the subject ----------------------------------------------------------------------------------


class AseModel:
    """An ASE calculator, one crystal after the other.

    Energies are the calculator's `energy` (for a smeared metal the one extrapolated to zero width)
    over the number of atoms, forces and stress its own. A row on which it raises, or gives
    something that is not finite, is not scored, and its words are the reason; the others are
    unaffected. What it raised is the reason in this session alone, since it may pass. It is reset
    before each row, so what a row gives depends on nothing before it.
    """

    def __init__(self, source: Here | Workers, *, identity: Identity, card: Card) -> None:
        self.identity = identity
        self.card = card
        self.elements = (
            frozenset(range(1, len(SYMBOLS) + 1)) if card.elements is None else card.elements
        )
        self._source = source

    def __repr__(self) -> str:
        return f"AseModel({self.identity.name!r})"

    def plan(self, crystals: Crystals) -> list[np.ndarray]:
        """Batches of row positions in the order given, each of some hundred atoms."""
        return packed(np.arange(len(crystals)), crystals.n_atoms, ATOMS_PER_BATCH)

    def predict(self, crystals: Crystals, properties: Sequence[str] = ("energy",)) -> Prediction:
        """Energies of every row, and what else is asked for.

        A row is scored if everything asked for is finite.

        Args:
            properties: of energy (always given), forces, stress, magmoms.
        Raises:
            ConfigError: a property is unknown.
            NotAvailable: the calculator does not implement one of them.
            ModelError: memory, a disk, a device or time gave out, which says nothing about a row.
        """
        check_properties(self.identity.name, self.card, properties)
        wanted = tuple(p for p in METHODS if p in properties or p == "energy")
        n_atoms = crystals.n_atoms.tolist()
        values: dict[str, list[np.ndarray]] = {
            "energy": [np.array(np.nan)] * len(n_atoms),
            "forces": [np.full((n, 3), np.nan) for n in n_atoms],
            "stress": [np.full((3, 3), np.nan)] * len(n_atoms),
            "magmoms": [np.full(n, np.nan) for n in n_atoms],
        }
        problems, raised = not_known(crystals, self.elements), set()
        rows = [row for row in range(len(crystals)) if row not in problems]
        with _refusals(f"{self.identity.name} "):
            answers = self._source.each([crystals.atoms(row) for row in rows], wanted)
            for row, answer in zip(rows, answers, strict=True):
                found = answer if isinstance(answer, str) else _in_our_units(answer, n_atoms[row])
                if isinstance(found, str):
                    problems[row] = str(found)
                    if isinstance(found, Raised):
                        raised.add(row)
                    continue
                for name, value in found.items():
                    values[name][row] = value
        return Prediction(
            energy=np.array(values["energy"], dtype=np.float64).reshape(len(n_atoms)),
            problems=dict(sorted(problems.items())),
            raised=frozenset(raised),
            forces=values["forces"] if "forces" in wanted else None,
            stress=np.array(values["stress"]).reshape(-1, 3, 3) if "stress" in wanted else None,
            magmoms=values["magmoms"] if "magmoms" in wanted else None,
        )

    def energies(self, crystals: Crystals) -> np.ndarray:
        """(n,) float64 eV/atom.

        Raises:
            ModelError: a row could not be scored; the message names the rows.
        """
        prediction = self.predict(crystals)
        refuse(self.identity.name, prediction.problems)
        return prediction.energy


def _in_our_units(answer: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray] | str:
    """ASE's eV, eV/Å, Voigt eV/Å^3 and signed μB as the harness has them, or what is odd."""
    shapes = {"energy": (), "forces": (n, 3), "stress": (6,), "magmoms": (n,)}
    found = dict(answer)
    for name, raw in answer.items():
        if name == "magmoms" and raw.shape == (n, 3):  # vectors of a non-collinear one
            found[name] = np.linalg.norm(raw, axis=1)
        if found[name].shape != shapes[name]:
            return f"its {name} has shape {raw.shape} for {n} atoms"
    found["energy"] = found["energy"] / n
    if "stress" in found:
        xx, yy, zz, yz, xz, xy = found["stress"] * GPA_PER_EV_ANG3
        found["stress"] = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if "magmoms" in found:
        found["magmoms"] = np.abs(found["magmoms"])
    return found
