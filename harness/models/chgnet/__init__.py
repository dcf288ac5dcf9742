"""CHGNet: chgnet's weights, this project's graph builder and forward pass.

``graph.py`` builds graphs from columns, ``messages.py`` finds which atoms are alike; on a GPU
``device_graph.py`` does both, and ``build.py`` chooses. ``forward.py`` computes, with ``gated.py``
for what runs over edges and angles, ``kernels.py`` for the same on a GPU, and ``incidence.py`` for
sums over who receives what. ``weights.py`` reads chgnet's files, ``model.py`` joins all into a
subject, ``trainable.py`` trains it, ``original.py`` is chgnet itself. torch and chgnet are imported
only by ``load``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import NotAvailable
from harness.models import own_weights

if TYPE_CHECKING:
    from harness.models.chgnet.model import CHGNetModel

__all__ = ["PREFIX", "load", "load_checkpoint", "parse"]

PREFIX = "chgnet:"  # of the name of a checkpoint: chgnet:PATH?card.theory=PBE


def parse(name: str) -> own_weights.Checkpoint:
    """The parts of a `chgnet:PATH?card.key=value` name; nothing is read. Raises ConfigError."""
    return own_weights.parse(name, PREFIX)


def load_checkpoint(name: str, device: str = "auto") -> CHGNetModel:
    """A CHGNet of yours as a subject, on the same engine as the published ones.

    Args:
        name: `chgnet:PATH?card.key=value`, see `parse`; the subject is called by its file.
    Raises:
        ConfigError: the name or the device is not well formed.
        NotAvailable: chgnet or torch is not installed, or no GPU is found.
        ModelError: the file is absent, or holds nothing that can be used.
    """
    checkpoint = parse(name)
    return _model().from_checkpoint(
        checkpoint.path, f"{PREFIX}{checkpoint.path.name}", device, checkpoint.declared
    )


def load(version: str = "0.3.0", device: str = "auto") -> CHGNetModel:
    """CHGNet as a subject.

    Args:
        version: "0.3.0", "0.2.0" or "r2scan".
        device: "cpu", "cuda" (or "cuda:1"), or "auto" for a GPU where there is one.
    Raises:
        ConfigError: the version or the device is unknown.
        NotAvailable: chgnet or torch is not installed, or no GPU is found.
        ModelError: chgnet's files are not as expected.
    """
    return _model()(version, device)


def _model() -> type[CHGNetModel]:
    try:
        from harness.models.chgnet.model import CHGNetModel
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise NotAvailable("CHGNet needs torch. Install it: pip install torch.") from error
    return CHGNetModel
