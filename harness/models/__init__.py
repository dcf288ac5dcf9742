"""Subjects by name. To add one, write an adapter in this folder and give it a line below.

Nothing heavy is imported until a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import ConfigError
from harness.models import ase, chgnet
from harness.models.cards import Card
from harness.models.protocol import Identity, Model, Prediction

__all__ = [
    "ASE",
    "CHECKPOINT",
    "DEVICES",
    "MODELS",
    "Card",
    "Identity",
    "Model",
    "Prediction",
    "check_name",
    "load_model",
    "weights",
]


def _chgnet(version: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        return chgnet.load(version, device)

    return load


def _sevennet(device: str) -> Model:
    from harness.models import sevennet

    return sevennet.load(device)


def _mattersim(size: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        from harness.models import mattersim

        return mattersim.load(size, device)

    return load


MODELS: dict[str, Callable[[str], Model]] = {
    "chgnet-0.3.0": _chgnet("0.3.0"),
    "chgnet-0.2.0": _chgnet("0.2.0"),
    "chgnet-r2scan": _chgnet("r2scan"),
    "sevennet-0": _sevennet,
    "mattersim-1M": _mattersim("1M"),
    "mattersim-5M": _mattersim("5M"),
}
ASE = "ase:package.module:Factory?key=value"  # any ASE calculator, see ase.py
CHECKPOINT = "chgnet:PATH"  # a CHGNet of your own, see chgnet/weights.py
DEVICES = ("auto", "cpu", "cuda")


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
    elif name.startswith(chgnet.PREFIX):
        chgnet.parse(name)
    elif name not in MODELS:
        raise ConfigError(
            f"no model {name!r}; known: {', '.join(MODELS)}, {CHECKPOINT} or {ASE}. To add one, "
            "write an adapter in harness/models/."
        )


def load_model(name: str, device: str = "auto") -> Model:
    """A pretrained potential, ready to predict.

    Args:
        name: one of MODELS, `chgnet:PATH` for a checkpoint of yours, or
            `ase:package.module:Factory?key=value` for any ASE calculator.
        device: `cpu`, `cuda`, or `auto` (a GPU where there is one).
    Raises:
        ConfigError: unknown name or device, or arguments that a calculator does not take.
        NotAvailable: its package, its weights or the device are absent; the message says how to
            get them.
        ModelError: its weights cannot be read.
    """
    check_name(name)
    if device not in DEVICES:
        raise ConfigError(f"no device {device!r}; known: {', '.join(DEVICES)}")
    if name in MODELS:
        return MODELS[name](device)
    return (chgnet.load_checkpoint if name.startswith(chgnet.PREFIX) else ase.load)(name, device)


def weights() -> dict[str, str]:
    """Where the weights of each named model are on this machine, or how to get them."""
    from harness.models import mattersim, sevennet

    found = {name: "in the chgnet package" for name in MODELS if name.startswith("chgnet")}
    found["sevennet-0"] = sevennet.weights()
    return found | {f"mattersim-{size}": mattersim.weights(size) for size in mattersim.FILES}
