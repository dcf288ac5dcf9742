"""Subjects by name. To add one, write an adapter in this folder and give it a line below.

Nothing heavy is imported until a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.errors import ConfigError
from harness.models.protocol import Identity, Model, Prediction

__all__ = ["MODELS", "Identity", "Model", "Prediction", "load_model"]


def _chgnet(version: str) -> Callable[[str], Model]:
    def load(device: str) -> Model:
        from harness.models import chgnet

        return chgnet.load(version, device)

    return load


MODELS: dict[str, Callable[[str], Model]] = {
    "chgnet-0.3.0": _chgnet("0.3.0"),
    "chgnet-0.2.0": _chgnet("0.2.0"),
    "chgnet-r2scan": _chgnet("r2scan"),
}
DEVICES = ("auto", "cpu", "cuda")


def load_model(name: str, device: str = "auto") -> Model:
    """A pretrained potential, ready to predict.

    Args:
        device: `cpu`, `cuda`, or `auto` (a GPU where there is one).
    Raises:
        ConfigError: unknown name or device.
        ModelError: its weights cannot be read, or the device is absent.
    """
    if name not in MODELS:
        raise ConfigError(
            f"no model {name!r}; known: {', '.join(MODELS)}. To add one, write an adapter in "
            "harness/models/."
        )
    if device not in DEVICES:
        raise ConfigError(f"no device {device!r}; known: {', '.join(DEVICES)}")
    return MODELS[name](device)
