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

if TYPE_CHECKING:
    from harness.models.chgnet.model import CHGNetModel

__all__ = ["load"]


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
    try:
        from harness.models.chgnet.model import CHGNetModel
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from harness.errors import NotAvailable

        raise NotAvailable("CHGNet needs torch. Install it: pip install torch.") from error
    return CHGNetModel(version, device)
