"""Read the checkpoints inside the installed chgnet package, and your own, without unpickling.

Source: chgnet (Deng et al., Nature Machine Intelligence 5, 1031 (2023)), the files of its wheel.
Licence: modified BSD, as chgnet.  Theory: PBE/PBE+U with MP2020 corrections (0.2.0 and 0.3.0, from
MPtrj), r2SCAN (r2scan, transferred to MP-r2SCAN).

Public: VERSIONS, read_chgnet, read_checkpoint.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.own_weights import read_tensors, refuse_not_finite

if TYPE_CHECKING:
    from chgnet.model import CHGNet

VERSIONS = {
    "0.3.0": "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
    "0.2.0": "0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
    "r2scan": "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}

_SAVE = "Save it anew: torch.save(network.as_dict(), path)."

# what the fast forward pass takes for granted
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "mlp_first": (True,),
    "is_intensive": (True,),
    "update_bond": (True,),
    "update_angle": (True,),
    "conv_norm": (None,),
    "gMLP_norm": (None, "layer"),
    "readout_norm": (None, "layer"),
    "non_linearity": ("silu",),
    "atom_conv_hidden_dim": (64,),
    "bond_conv_hidden_dim": (64,),
    "angle_layer_hidden_dim": (0,),
    "atom_fea_dim": (64,),
    "bond_fea_dim": (64,),
    "angle_fea_dim": (64,),
}


def read_chgnet(version: str) -> CHGNet:
    """chgnet's own module with the weights of one of VERSIONS, on the CPU, in evaluation mode.

    Raises:
        ConfigError: the version is unknown.
        NotAvailable: chgnet is not installed, or is a version without this file.
        ModelError: the file cannot be read, or holds another network than this adapter computes.
    """
    if version not in VERSIONS:
        raise ConfigError(f"CHGNet {version!r} is unknown; known: {', '.join(VERSIONS)}.")
    chgnet = _chgnet(f"CHGNet {version}")
    path = Path(chgnet.__file__).parent / "pretrained" / VERSIONS[version]
    if not path.is_file():
        raise NotAvailable(
            f"the installed chgnet has no {path.name}: expected it at {path}. Install one that "
            "ships it: pip install 'chgnet>=0.4.2'."
        )
    held = read_tensors(path, _SAVE)["model"]
    # chgnet's loader does the same: 0.2.0 was trained with a bias that later versions dropped
    arguments = held["model_args"] | {"version": version, "mlp_out_bias": version == "0.2.0"}
    return _network(path, arguments, held["state_dict"])


def read_checkpoint(path: Path) -> CHGNet:
    """chgnet's own module with the weights of a file, on the CPU, in evaluation mode.

    Args:
        path: as chgnet's ``Trainer.save`` writes it, or ``torch.save`` of a network's ``as_dict()``
            or ``state_dict()``. A bare state_dict does not say what network it is of: it is taken
            for 0.3.0's.
    Raises:
        NotAvailable: chgnet is not installed.
        ModelError: there is no such file, it holds something else or another network than this
            adapter computes, or a weight is not finite; the message says which.
    """
    _chgnet(path.name)
    held = read_tensors(path, _SAVE)
    for form in (held.get("model"), held):
        if isinstance(form, dict) and {"state_dict", "model_args"} <= set(form):
            return _network(path, dict(form["model_args"]), form["state_dict"])
    if "composition_model.fc.weight" in held:
        return _network(path, dict(read_chgnet("0.3.0").model_args), held)
    raise ModelError(
        f"{path} holds {', '.join(map(repr, list(held)[:5])) or 'nothing'}, and no CHGNet: save "
        "one with chgnet's Trainer.save(), or torch.save(network.as_dict(), path)."
    )


def _chgnet(what: str) -> Any:
    try:
        import chgnet
        import chgnet.model
    except ImportError as error:
        raise NotAvailable(
            f"{what} needs chgnet ({error}). Install it: pip install 'chgnet>=0.4.2'."
        ) from error
    return chgnet


def _network(path: Path, arguments: dict[str, Any], state: dict[str, Any]) -> CHGNet:
    from chgnet.model import CHGNet

    for name, allowed in _REQUIRED.items():
        if name in arguments and arguments[name] not in allowed:
            raise ModelError(
                f"{path.name}: {name}={arguments[name]!r}, and this adapter computes only "
                f"{' or '.join(map(repr, allowed))}. Use chgnet's own CHGNet.load for it."
            )
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces its number of parameters
            network = CHGNet(**arguments)
        network.load_state_dict(state)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ModelError(f"{path.name} holds another network than CHGNet's: {said[:300]}") from None
    refuse_not_finite(network.state_dict(), path)
    return network.eval().requires_grad_(False)
