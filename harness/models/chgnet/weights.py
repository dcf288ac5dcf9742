"""Read the checkpoints inside the installed chgnet package, without unpickling anything.

Source: chgnet (Deng et al., Nature Machine Intelligence 5, 1031 (2023)), the files of its wheel.
Licence: modified BSD, as chgnet.  Theory: PBE/PBE+U with MP2020 corrections (0.2.0 and 0.3.0, from
MPtrj), r2SCAN (r2scan, transferred to MP-r2SCAN).

Public: VERSIONS, read_chgnet, state_sha256.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, ModelError, NotAvailable

if TYPE_CHECKING:
    import torch
    from chgnet.model import CHGNet

VERSIONS = {
    "0.3.0": "0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
    "0.2.0": "0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar",
    "r2scan": "r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
}

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
        ModelError: the file holds another network than this adapter computes.
    """
    if version not in VERSIONS:
        raise ConfigError(f"CHGNet {version!r} is unknown; known: {', '.join(VERSIONS)}.")
    try:
        import chgnet
        import torch
        from chgnet.model import CHGNet
    except ImportError as error:
        raise NotAvailable(
            f"CHGNet {version} needs chgnet ({error}). Install it: pip install 'chgnet>=0.4.2'."
        ) from error

    path = Path(chgnet.__file__).parent / "pretrained" / VERSIONS[version]
    if not path.is_file():
        raise NotAvailable(
            f"the installed chgnet has no {path.name}: expected it at {path}. Install one that "
            "ships it: pip install 'chgnet>=0.4.2'."
        )
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)["model"]
    arguments = checkpoint["model_args"] | {"version": version}
    # chgnet's loader does the same: 0.2.0 was trained with a bias that later versions dropped
    arguments["mlp_out_bias"] = version == "0.2.0"
    for name, allowed in _REQUIRED.items():
        if name in arguments and arguments[name] not in allowed:
            raise ModelError(
                f"{path.name}: {name}={arguments[name]!r}, and this adapter computes only "
                f"{' or '.join(map(repr, allowed))}. Use chgnet's own CHGNet.load for it."
            )
    with contextlib.redirect_stdout(io.StringIO()):  # it announces its number of parameters
        network = CHGNet(**arguments)
    network.load_state_dict(checkpoint["state_dict"])
    return network.eval().requires_grad_(False)


def state_sha256(state: dict[str, torch.Tensor]) -> str:
    """sha256 of names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256(b"state-1\0")
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
