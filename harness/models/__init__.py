"""Subjects by name. To add one, write an adapter in this folder and give it a line below.

A package of somebody else's adds its own under the entry point group `mlip_claims.models`:
name -> a function from a device to a Model. Nothing heavy is imported until a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from harness.errors import ConfigError, HarnessError, ModelError, NotAvailable
from harness.models import ase, chgnet, diep, mattersim, sevennet
from harness.models.cards import Card, elements_named
from harness.models.foreign import others_warnings, words
from harness.models.protocol import Identity, Model, Prediction

__all__ = [
    "ASE",
    "CHECKPOINT",
    "DEVICES",
    "ENTRY_POINTS",
    "MODELS",
    "Card",
    "Identity",
    "Model",
    "Prediction",
    "check_name",
    "elements_named",
    "load_model",
    "of_ones_own",
    "third_parties",
    "weights",
]


def _chgnet(version: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        return chgnet.load(version, device)

    return load


def _sevennet(name: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        return sevennet.load(name, device)

    return load


def _mattersim(size: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        return mattersim.load(size, device)

    return load


MODELS: dict[str, Callable[[str], Model]] = {
    "chgnet-0.3.0": _chgnet("0.3.0"),
    "chgnet-0.2.0": _chgnet("0.2.0"),
    "chgnet-r2scan": _chgnet("r2scan"),
    **{name: _sevennet(name) for name in sevennet.PUBLISHED},
    diep.NAME: diep.load,
    "mattersim-1M": _mattersim("1M"),
    "mattersim-5M": _mattersim("5M"),
}
ASE = "ase:package.module:Factory?key=value"  # any ASE calculator, see ase.py
CHECKPOINT = "chgnet:PATH, sevennet:PATH, mattersim:PATH"  # weights of your own
_OWN = (chgnet, sevennet, mattersim)
DEVICES = ("auto", "cpu", "cuda")
ENTRY_POINTS = "mlip_claims.models"  # the group


def check_name(name: str, *, resolve: bool = False) -> None:
    """Refuse a name that no subject can have. Imports nothing unless asked to resolve.

    Args:
        resolve: import the module that an `ase:` name points at, and look at the factory.
    Raises:
        ConfigError: the name is unknown or not well formed.
        NotAvailable: resolving needs a package that is not installed.
    """
    if name.startswith(ase.PREFIX):
        spec = ase.parse(name)
        if resolve:
            ase.resolve(spec)
    elif (own := of_ones_own(name)) is not None:
        own.parse(name)
    elif name not in MODELS and name not in (others := third_parties()):
        raise ConfigError(
            f"no model {name!r}; known: {', '.join([*MODELS, *others])}, {CHECKPOINT} or {ASE}. To "
            "add one, write an adapter in harness/models/, or a package with the entry point "
            f"{ENTRY_POINTS}."
        )


def load_model(
    name: str, device: str = "auto", *, python: str | None = None, alias: str | None = None
) -> Model:
    """A pretrained potential, ready to predict.

    Args:
        name: one of MODELS; `chgnet:PATH`, `sevennet:PATH` or `mattersim:PATH` for weights of
            yours; `ase:package.module:Factory?key=value` for any ASE calculator; or one that an
            installed package brings.
        device: `cpu`, `cuda`, or `auto` (a GPU where there is one).
        python: the interpreter of another environment that holds the ASE calculator.
        alias: what reports call it; where its predictions are stored does not depend on it.
    Raises:
        ConfigError: unknown name or device, or arguments that a calculator does not take.
        NotAvailable: its package, its weights or the device are absent; the message says how to
            get them.
        ModelError: its weights cannot be read.
    """
    check_name(name)
    if device not in DEVICES:
        raise ConfigError(f"no device {device!r}; known: {', '.join(DEVICES)}")
    if name.startswith(ase.PREFIX):
        model: Model = ase.load(name, device, python)
    elif python is not None:
        raise ConfigError(f"{name}: another python is for {ASE}, not for {name}")
    elif (own := of_ones_own(name)) is not None:
        model = own.load_checkpoint(name, device)
    elif name in MODELS:
        model = MODELS[name](device)
    else:
        model = _third_party(third_parties()[name], device)
    if alias is not None:
        try:
            model.identity = model.identity.called(alias)  # type: ignore[misc]  # others only read
        except AttributeError:
            raise ConfigError(f"{name} cannot be called {alias!r}: its identity is fixed") from None
    return model


def of_ones_own(name: str) -> ModuleType | None:
    """What reads the weights that a name like `chgnet:PATH` points at; None for other names.

    It has ``parse`` (the name, to an `own_weights.Checkpoint`) and ``load_checkpoint``.
    """
    return next((own for own in _OWN if name.startswith(own.PREFIX)), None)


def third_parties() -> dict[str, EntryPoint]:
    """Models that installed packages bring, by name; one of MODELS cannot be replaced so."""
    return {found.name: found for found in entry_points(group=ENTRY_POINTS)}


def _third_party(found: EntryPoint, device: str) -> Model:
    whose = f"{found.name} of {found.dist.name if found.dist else found.value}"
    try:
        with others_warnings():
            model = found.load()(device)
    except HarnessError:
        raise
    except ImportError as error:
        raise NotAvailable(f"{whose} lacks something ({words(error)}). Install it.") from error
    except Exception as error:  # whatever others raise
        raise ModelError(f"{whose} could not be loaded: {words(error)}.") from error
    if not isinstance(model, Model) or model.identity.name != found.name:
        raise ModelError(
            f"{whose} gives a {type(model).__name__}, which is no subject of that name: it needs "
            "identity (with this name), elements, card, plan, predict and energies, as in "
            "harness/models/protocol.py."
        )
    return model


def weights() -> dict[str, str]:
    """Where the weights of each named model are on this machine, or how to get them."""
    found = {name: "in the chgnet package" for name in MODELS if name.startswith("chgnet")}
    found |= {name: sevennet.weights(name) for name in sevennet.PUBLISHED}
    found[diep.NAME] = diep.weights()
    return found | {f"mattersim-{size}": mattersim.weights(size) for size in mattersim.FILES}
