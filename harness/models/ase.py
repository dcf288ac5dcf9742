"""Any ASE calculator as a subject: `ase:package.module:Factory?key=value&key2=value2`.

The factory (a class, or anything else that returns a calculator) is called with the keyword
arguments of the query. A value is an integer (3), a float (0.5, 1e-3), a boolean (true, false) or
else a string; "3" in double quotes stays a string, and %26 stands for an & inside a value. Where
the factory has a parameter `device` that the query leaves out, it gets what --device chose.
`card.elements=Al,Cu` (or H-Pu), `card.theory=`, `card.training_set=` and `card.energies=` declare
what a calculator cannot say of itself, and `card.properties=energy,forces` corrects one that says
too much; the factory does not see them.

Public: AseModel, AseSpec, PREFIX, parse, resolve, load.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from harness.data.elements import SYMBOLS
from harness.data.paths import sha256_of
from harness.data.units import GPA_PER_EV_ANG3
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.cards import UNITS, Card, elements_named
from harness.models.foreign import (
    check_properties,
    not_known,
    others_warnings,
    refuse,
    words,
)
from harness.models.packing import packed
from harness.models.protocol import Identity, Prediction

if TYPE_CHECKING:
    from ase import Atoms

    from harness.data.crystals import Crystals

PREFIX = "ase:"
ENGINE = "1"  # raise it when a number this adapter gives changes
ATOMS_PER_BATCH = 256  # of a calculator that takes a second for ten atoms: saved twice a minute

Value = int | float | bool | str
_NAME = r"[A-Za-z_]\w*"
_SPEC = re.compile(rf"(?P<module>{_NAME}(\.{_NAME})*):(?P<factory>{_NAME}(\.{_NAME})*)")
_HOW = "Write ase:package.module:Factory?key=value&key2=value2"
_DECLARABLE = ("elements", "theory", "training_set", "energies", "properties")
_METHODS = {  # of ase.Atoms; the energy last, since most calculators have it once they have forces
    "stress": "get_stress",
    "forces": "get_forces",
    "magmoms": "get_magnetic_moments",
    "energy": "get_potential_energy",
}
# Not a row's fault, and gone by the next session, so never to be stored as its problem.
_SPENT = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE}


@dataclass(frozen=True, kw_only=True)
class AseSpec:
    """What a name says: which factory, its arguments, and what is declared."""

    name: str
    module: str
    factory: str  # dotted where it is a class method
    arguments: Mapping[str, Value]
    declared: Mapping[str, str]


def parse(name: str) -> AseSpec:
    """The parts of an `ase:` name; nothing is imported.

    Raises:
        ConfigError: it is not of that form, a key is given twice, or an element is unknown.
    """
    target, _, query = name.removeprefix(PREFIX).partition("?")
    match = _SPEC.fullmatch(target)
    if not name.startswith(PREFIX) or match is None:
        raise ConfigError(f"{name!r} names no ASE calculator. {_HOW}.")
    arguments: dict[str, Value] = {}
    declared: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, text = part.partition("=")
        known = declared if key.startswith("card.") else arguments
        short = key.removeprefix("card.")
        if not equals or not re.fullmatch(_NAME, short):
            raise ConfigError(f"{part!r} in {name!r} is no key=value. {_HOW}.")
        if short in known:
            raise ConfigError(f"{key!r} is given twice in {name!r}; give it once")
        if known is declared:
            if short not in _DECLARABLE:
                raise ConfigError(
                    f"{key!r} in {name!r} declares nothing; there are "
                    f"{', '.join(f'card.{field}' for field in _DECLARABLE)}"
                )
            declared[short] = unquote(text)
        else:
            arguments[short] = _value(unquote(text))
    if "elements" in declared:
        elements_named(declared["elements"])
    return AseSpec(
        name=name,
        module=match["module"],
        factory=match["factory"],
        arguments=arguments,
        declared=declared,
    )


def _value(text: str) -> Value:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return text


def resolve(spec: AseSpec) -> Callable[..., Any]:
    """The factory itself, imported, and known to take these arguments.

    Raises:
        NotAvailable: its package, or one that it imports, is not installed.
        ConfigError: the package has no such module or factory, or the factory takes no such
            argument.
    """
    try:
        with others_warnings():
            found: Any = importlib.import_module(spec.module)
    except ModuleNotFoundError as error:
        missing, package = error.name or "", spec.module.partition(".")[0]
        if missing != package and f"{spec.module}.".startswith(f"{missing}."):
            raise ConfigError(
                f"{spec.name!r}: {package} is installed and has no module {missing}. Correct it."
            ) from error
        raise NotAvailable(
            f"{spec.name!r} needs the package {missing.partition('.')[0]}, which is not installed. "
            "Install it with pip, or start from the folder that holds it."
        ) from error
    except ImportError as error:
        raise NotAvailable(
            f"{spec.name!r} cannot be imported ({words(error)}). Install what it misses."
        ) from error
    for part in spec.factory.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{spec.name!r}: {spec.module} has no {spec.factory}. Correct it.")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{spec.name!r}: {spec.factory} cannot be called. Name a class. {_HOW}.")
    signature = _signature(found)
    if signature is not None:
        try:
            signature.bind_partial(**spec.arguments)
        except TypeError as error:
            raise ConfigError(
                f"{spec.name!r}: {error}; {spec.factory} takes {signature}. Correct the query."
            ) from None
    return found


def _signature(factory: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(factory)
    except (TypeError, ValueError):  # some compiled code has none
        return None


def load(name: str, device: str = "auto") -> AseModel:
    """The calculator that an `ase:` name describes, as a subject.

    Args:
        device: for a factory with a parameter of that name, unless the query gives it.
    Raises:
        ConfigError: the name, or an argument, is wrong; the message says which.
        NotAvailable: a package or a program that the calculator needs is not installed.
        ModelError: the calculator could not be made for another reason.
    """
    spec = parse(name)
    factory = resolve(spec)
    arguments = dict(spec.arguments)
    signature = _signature(factory)
    if signature is not None and "device" in signature.parameters:
        arguments.setdefault("device", _chosen(device))
    calculator = _made(spec, factory, arguments)
    declared = dict(spec.declared)
    elements = elements_named(declared.pop("elements")) if "elements" in declared else None
    implemented = set(calculator.implemented_properties)
    properties = tuple(p for p in UNITS if p == "energy" or p in implemented)
    if "properties" in declared:
        properties = tuple(declared.pop("properties").split(","))
        if not {*properties, "energy"} <= {*implemented, "energy"}:
            raise ConfigError(
                f"card.properties={','.join(properties)}: {type(calculator).__name__} gives "
                f"{', '.join(p for p in UNITS if p in implemented)}. Declare what it gives."
            )
    return AseModel(
        calculator,
        identity=_identity(spec, factory, arguments),
        card=Card(
            elements=elements,
            properties=properties,
            source="the query of its name" if spec.declared else "",
            **declared,
        ),
    )


def _chosen(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _made(spec: AseSpec, factory: Callable[..., Any], arguments: Mapping[str, Value]) -> Any:
    from ase.calculators.calculator import BadConfiguration, EnvironmentError, InputError

    called = f"{spec.factory}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"
    try:
        with others_warnings():
            calculator = factory(**arguments)
    except (ImportError, BadConfiguration, EnvironmentError) as error:
        raise NotAvailable(
            f"{called} lacks something ({words(error)}). Install or configure it."
        ) from error
    except (TypeError, ValueError, KeyError, InputError) as error:
        raise ConfigError(
            f"{called} refuses its arguments ({words(error)}). Correct the query of {spec.name!r}."
        ) from error
    except Exception as error:  # other people's constructors raise whatever they like
        raise ModelError(f"{called} could not be made: {words(error)}.") from error
    if not callable(getattr(calculator, "get_property", None)):  # ase.Atoms has not, though it
        # has much else that a calculator has
        raise ConfigError(
            f"{called} gives a {type(calculator).__name__}, which is no ASE calculator. {_HOW}."
        )
    if ignored := _ignored(calculator, spec.arguments):
        raise ConfigError(
            f"{called} would ignore {', '.join(ignored)}: {type(calculator).__name__} knows "
            f"{', '.join(sorted(calculator.default_parameters))}. Correct the query."
        )
    return calculator


def _ignored(calculator: Any, arguments: Mapping[str, Value]) -> list[str]:
    """Arguments that ASE's base class stores and the calculator never reads.

    ASE calculators take any keyword. One that lists its parameters and starts no other program
    knows no more than those and what its constructors name.
    """
    from ase.calculators.calculator import Calculator, FileIOCalculator

    defaults = getattr(calculator, "default_parameters", None)
    if not defaults or not isinstance(calculator, Calculator):
        return []
    if isinstance(calculator, FileIOCalculator):
        return []
    signatures = [_signature(kind) for kind in type(calculator).__mro__]
    named = {p for signature in signatures if signature for p in signature.parameters}
    return [key for key in arguments if key not in named | set(defaults)]


# --- what it is addressed by ----------------------------------------------------------------------


def _identity(
    spec: AseSpec, factory: Callable[..., Any], arguments: Mapping[str, Value]
) -> Identity:
    """Import path, arguments, versions, the code itself, and the content of files among them."""
    files = {
        f"file {key}": sha256_of(Path(value))
        for key, value in arguments.items()
        if isinstance(value, str) and value and Path(value).is_file()
    }
    settings = {
        "engine": ENGINE,
        "factory": f"{spec.module}:{spec.factory}",
        "arguments": json.dumps(dict(sorted(arguments.items()))),
        "package": _version(spec.module),
        "ase": importlib.metadata.version("ase"),
        "code": _code_sha256(spec.module, factory),
        "elements": spec.declared.get("elements", ""),
        **files,
    }
    return Identity(
        name=spec.name,
        weights_sha256=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
        settings=settings,
    )


@functools.cache
def _distribution(package: str) -> importlib.metadata.Distribution | None:
    """What installed the package, and None for code that lies in a folder."""
    names = importlib.metadata.packages_distributions().get(package, [])
    return importlib.metadata.distribution(names[0]) if names else None


def _version(module: str) -> str:
    found = _distribution(module.partition(".")[0])
    return f"{found.metadata['Name']} {found.version}" if found else "no installed package"


def _code_sha256(module: str, factory: Callable[..., Any]) -> str:
    """Of the files a version number does not pin down.

    For an installed package the version says the rest, and the file that defines the factory is
    enough; a package in a folder, or installed as editable, changes without its version.
    """
    package = module.partition(".")[0]
    found = _distribution(package)
    origin = json.loads((found.read_text("direct_url.json") if found else None) or "{}")
    editable = origin.get("dir_info", {}).get("editable", False)
    own = getattr(importlib.import_module(package), "__file__", None)
    try:
        paths = {Path(inspect.getfile(factory))}
    except TypeError:  # compiled
        paths = set()
    if (found is None or editable) and own is not None:
        folder = Path(own).parent
        paths |= {Path(own)} if Path(own).name != "__init__.py" else set(folder.rglob("*.py"))
    digest = hashlib.sha256()
    for content in sorted(sha256_of(path) for path in paths if path.is_file()):
        digest.update(content.encode())
    return digest.hexdigest()


# --- the subject ----------------------------------------------------------------------------------


class AseModel:
    """An ASE calculator, one crystal after the other.

    Energies are the calculator's `energy` (for a smeared metal the one extrapolated to zero width)
    over the number of atoms, forces and stress its own. A row on which it raises, or gives
    something that is not finite, is not scored, and its words are the reason; the others are
    unaffected. It is reset before each row, so what a row gives depends on nothing before it.
    """

    def __init__(
        self,
        calculator: Any,
        *,
        identity: Identity,
        card: Card,
        surroundings: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """surroundings: entered for every call of predict, a limit on threads for example."""
        self.identity = identity
        self.card = card
        self.elements = (
            frozenset(range(1, len(SYMBOLS) + 1)) if card.elements is None else card.elements
        )
        self._calculator = calculator
        self._surroundings = surroundings

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
            ModelError: memory or a disk gave out, which says nothing about a row.
        """
        check_properties(self.identity.name, self.card, properties)
        wanted = tuple(p for p in _METHODS if p in properties or p == "energy")
        n_atoms = crystals.n_atoms.tolist()
        values: dict[str, list[np.ndarray]] = {
            "energy": [np.array(np.nan)] * len(n_atoms),
            "forces": [np.full((n, 3), np.nan) for n in n_atoms],
            "stress": [np.full((3, 3), np.nan)] * len(n_atoms),
            "magmoms": [np.full(n, np.nan) for n in n_atoms],
        }
        problems = not_known(crystals, self.elements)
        with others_warnings(), self._surroundings():
            for row in range(len(crystals)):
                if row in problems:
                    continue
                found = self._row(crystals.atoms(row), wanted)
                if isinstance(found, str):
                    problems[row] = found
                else:
                    for name, value in found.items():
                        values[name][row] = value
        return Prediction(
            energy=np.array(values["energy"], dtype=np.float64).reshape(len(n_atoms)),
            problems=dict(sorted(problems.items())),
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

    def _row(self, atoms: Atoms, wanted: Sequence[str]) -> dict[str, np.ndarray] | str:
        """What was asked for in the harness's units, or why this row has none."""
        from ase.calculators.calculator import PropertyNotImplementedError

        n = len(atoms)
        shapes = {"energy": (), "forces": (n, 3), "stress": (6,), "magmoms": (n,)}
        found: dict[str, np.ndarray] = {}
        try:
            if hasattr(self._calculator, "reset"):
                self._calculator.reset()
            atoms.calc = self._calculator
            for name in wanted:
                raw = np.asarray(getattr(atoms, _METHODS[name])(), dtype=np.float64)
                if name == "magmoms" and raw.shape == (n, 3):  # vectors of a non-collinear one
                    raw = np.linalg.norm(raw, axis=1)
                if raw.shape != shapes[name]:
                    return f"its {name} has shape {raw.shape} for {n} atoms"
                if not np.isfinite(raw).all():
                    return f"its {name} is not finite"
                found[name] = _in_our_units(name, raw, n)
        except PropertyNotImplementedError as error:
            raise NotAvailable(
                f"{self.identity.name} gives no {wanted[len(found)]} ({words(error)}). Use another "
                "--model for what needs it."
            ) from error
        except ImportError as error:
            raise NotAvailable(
                f"{self.identity.name} cannot run ({words(error)}). Install what it misses."
            ) from error
        except Exception as error:  # a calculator may raise whatever it likes; it is the row's
            if _spent(error):
                raise ModelError(
                    f"{self.identity.name} ran out of something at {atoms.get_chemical_formula()}, "
                    f"{n} atoms ({words(error)}). Free it and run again; finished batches are kept."
                ) from error
            return words(error)
        return found


def _in_our_units(name: str, raw: np.ndarray, n_atoms: int) -> np.ndarray:
    """ASE's eV, eV/Å, Voigt eV/Å^3 and signed μB as the harness has them."""
    if name == "energy":
        return np.asarray(raw / n_atoms)
    if name == "stress":
        xx, yy, zz, yz, xz, xy = raw * GPA_PER_EV_ANG3
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    return np.abs(raw) if name == "magmoms" else raw


def _spent(error: Exception) -> bool:
    """Whether memory, disk or file handles gave out; torch has a class of its own for a GPU's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno in _SPENT)
    )
