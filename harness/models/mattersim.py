"""MatterSim v1.0.0 1M and 5M as subjects: mattersim's own calculator on weights the user names.

Weights: `mattersim-v1.0.0-1M.pth` and `-5M.pth` as Microsoft publishes them, from the file that
HARNESS_MATTERSIM_1M (or _5M) names, else from where mattersim itself keeps what it downloads.
Nothing is downloaded here. A file is read with torch's weights-only unpickler, and the network is
built from the settings in it.
Source: Yang et al., arXiv:2405.04967, and MatterSim's model card.  Licence: MIT.

Stress is the calculator's own, which has the wrong sign for a left-handed cell (mattersim 1.2.3
divides by the signed volume).

Public: FILES, VARIABLES, INSTALL, load, read, weights. Needs the extra `mattersim` and, because
mattersim's own requirements ask for much that its calculator does not import, a second command.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models.ase import ENGINE as ASE_ENGINE
from harness.models.ase import AseModel
from harness.models.ase_worker import Held
from harness.models.cards import Card
from harness.models.foreign import others_warnings, words
from harness.models.own_weights import state_sha256
from harness.models.protocol import Identity
from harness.models.remote import Here

if TYPE_CHECKING:
    import torch

ENGINE = "1"  # raise it when a number this adapter gives changes
FILES = {size: f"mattersim-v1.0.0-{size}.pth" for size in ("1M", "5M")}
VARIABLES = {size: f"HARNESS_MATTERSIM_{size}" for size in FILES}
FOLDER = Path("~/.local/mattersim/pretrained_models")  # mattersim's own
INSTALL = "pip install 'mlip-claims[mattersim]' && pip install --no-deps mattersim==1.2.3"

_PARAMETERS = {"1M": (0.5e6, 1.5e6), "5M": (3e6, 6e6)}  # 880,000 and 4.5 million, the card says
_TRAINED_ON = {"1M": "3 million", "5M": "6 million"}


def weights(size: str) -> str:
    """Where the weights are, or how to get them."""
    try:
        return str(_path(size))
    except NotAvailable as error:
        return str(error)


def load(size: str, device: str = "auto") -> AseModel:
    """MatterSim "1M" or "5M" on "cpu", "cuda" or "auto".

    Raises:
        NotAvailable: mattersim or the weights are not on this machine, or there is no GPU.
        ModelError: the file holds another network.
    """
    if size not in FILES:
        raise ConfigError(f"MatterSim {size!r} is unknown; known: {', '.join(FILES)}.")
    return read(_path(size), size, device)


def _path(size: str) -> Path:
    named = os.environ.get(VARIABLES[size])
    path = Path(named) if named else FOLDER.expanduser() / FILES[size]
    if path.is_file():
        return path
    missing = (
        f"{VARIABLES[size]} names {named}, which is no file"
        if named
        else f"no file {FOLDER / FILES[size]}"
    )
    raise NotAvailable(
        f"mattersim-{size}: {missing}. Set {VARIABLES[size]} to {FILES[size]} as Microsoft "
        'publishes it, or let mattersim download it: python -c "from mattersim.utils.'
        f"download_utils import download_checkpoint; download_checkpoint('{FILES[size]}')\""
    )


def read(path: Path, size: str, device: str = "auto") -> AseModel:
    """One file of weights as a subject; as load() for the rest."""
    try:
        with others_warnings():
            import torch
            from mattersim.forcefield.m3gnet.m3gnet import M3Gnet
            from mattersim.forcefield.potential import MatterSimCalculator, Potential
    except ImportError as error:
        raise NotAvailable(
            f"mattersim-{size} needs mattersim ({words(error)}). Install it: {INSTALL}"
        ) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise NotAvailable(f"mattersim-{size} on cuda: torch finds no GPU. Use --device cpu.")
    content = _content(path)
    with others_warnings():
        network = M3Gnet(device=device, **content["model_args"])
        _fill(network, content["model"], path, size)
        network.to(device).eval()
        calculator = MatterSimCalculator(
            potential=Potential(network, device=device), device=device, args_dict={}
        )
    settings = network.model_args
    return AseModel(
        Here(Held(calculator)),
        identity=Identity(
            name=f"mattersim-{size}",
            weights_sha256=state_sha256(network.state_dict()),
            settings={
                "engine": f"{ENGINE}, ase {ASE_ENGINE}",
                "dtype": "float32",
                "device": device,
                "mattersim": version("mattersim"),
                **{name: str(value) for name, value in sorted(settings.items())},
            },
        ),
        card=Card(
            elements=frozenset(range(1, settings["max_z"] + 1)),
            theory="PBE, with U as the Materials Project sets it",
            training_set=f"{_TRAINED_ON[size]} structures of Microsoft's own, 0 to 5000 K and up "
            "to 1000 GPa; not published",
            energies="total energies as VASP gives them, without MP2020 corrections",
            properties=("energy", "forces", "stress"),
            source="MatterSim's model card and published test sets (raw VASP energies); elements: "
            "rows of the network's embedding",
        ),
    )


def _content(path: Path) -> dict[str, Any]:
    import pickle
    import zipfile

    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(
            f"{path} cannot be read as weights alone ({words(error)}). Take the file as Microsoft "
            "publishes it."
        ) from error
    if not isinstance(content, dict) or not {"model", "model_args", "model_name"} <= set(content):
        raise ModelError(f"{path} is no MatterSim checkpoint: it has no model and model_args.")
    if content["model_name"] != "m3gnet":
        raise ModelError(
            f"{path} holds a {content['model_name']!r}; mattersim 1.2.3 computes only 'm3gnet'."
        )
    return content


def _fill(network: Any, state: dict[str, torch.Tensor], path: Path, size: str) -> None:
    """Load as mattersim does (not strictly), but leave nothing at its random start."""
    try:
        missing = set(network.load_state_dict(state, strict=False).missing_keys)
    except RuntimeError as error:
        raise ModelError(
            f"{path}: the weights do not fit the network of their own settings ({words(error)}). "
            "Take the file as Microsoft publishes it."
        ) from error
    learned = {name for name, _ in network.named_parameters()} | {
        name for name in network.state_dict() if name.startswith("normalizer.")
    }
    if absent := sorted(missing & learned):
        raise ModelError(
            f"{path} lacks {len(absent)} of the network's parameters, first {absent[0]}, and they "
            "would stay random. Take the file as Microsoft publishes it."
        )
    n_parameters = sum(p.numel() for p in network.parameters())
    low, high = _PARAMETERS[size]
    if not low < n_parameters < high:
        raise ModelError(
            f"{path} holds {n_parameters} parameters; mattersim-{size} has between {low:.2g} and "
            f"{high:.2g}. Is it the other size? Correct {VARIABLES[size]}."
        )
