"""MatterSim as a subject: mattersim's own calculator on weights the user names.

Weights: `mattersim-v1.0.0-1M.pth` and `-5M.pth` as Microsoft publishes them, from the file that
HARNESS_MATTERSIM_1M (or _5M) names, else from where mattersim itself keeps what it downloads; or
`mattersim:PATH?card.theory=PBE`, a checkpoint as mattersim's training saves it. Nothing is
downloaded here. A file is read with torch's weights-only unpickler, and the network is built from
the settings in it.
Source: Yang et al., arXiv:2405.04967, and MatterSim's model card.  Licence: MIT.

Stress is the calculator's own, which has the wrong sign for a left-handed cell (mattersim 1.2.3
divides by the signed volume).

Public: FILES, VARIABLES, INSTALL, PREFIX, parse, load, load_checkpoint, weights. Needs the extra
`mattersim` and, because mattersim's own requirements ask for much that its calculator does not
import, a second command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harness.data.elements import SYMBOLS
from harness.errors import ConfigError, ModelError, NotAvailable
from harness.models import own_weights
from harness.models.ase import ENGINE as ASE_ENGINE
from harness.models.ase import AseModel
from harness.models.ase_worker import Held
from harness.models.cards import DECLARABLE, Card
from harness.models.foreign import others_warnings, words
from harness.models.own_weights import read_tensors, refuse_not_finite, state_sha256
from harness.models.protocol import Identity
from harness.models.remote import Here

PREFIX = "mattersim:"  # of the name of a checkpoint: mattersim:PATH?card.theory=PBE
ENGINE = "1"  # raise it when a number this adapter gives changes
FILES = {size: f"mattersim-v1.0.0-{size}.pth" for size in ("1M", "5M")}
VARIABLES = {size: f"HARNESS_MATTERSIM_{size}" for size in FILES}
FOLDER = Path("~/.local/mattersim/pretrained_models")  # mattersim's own
PROPERTIES = ("energy", "forces", "stress")
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
    name, path = f"mattersim-{size}", _path(size)
    network = _read(name, path, device, "Take the file as Microsoft publishes it.")
    n_parameters = sum(p.numel() for p in network.parameters())
    low, high = _PARAMETERS[size]
    if not low < n_parameters < high:
        raise ModelError(
            f"{path} holds {n_parameters} parameters; {name} has between {low:.2g} and "
            f"{high:.2g}. Is it the other size? Correct {VARIABLES[size]}."
        )
    card = Card(
        elements=_elements(network),
        theory="PBE, with U as the Materials Project sets it",
        training_set=f"{_TRAINED_ON[size]} structures of Microsoft's own, 0 to 5000 K and up "
        "to 1000 GPa; not published",
        energies="total energies as VASP gives them, without MP2020 corrections",
        properties=PROPERTIES,
        source="MatterSim's model card and published test sets (raw VASP energies); elements: "
        "rows of the network's embedding",
    )
    return _subject(name, network, card)


def parse(name: str) -> own_weights.Checkpoint:
    """The parts of a `mattersim:PATH?card.key=value` name; nothing is read.

    Raises:
        ConfigError: it is not of that form.
    """
    return own_weights.parse(name, PREFIX, declarable=("elements", *DECLARABLE))


def load_checkpoint(name: str, device: str = "auto") -> AseModel:
    """A MatterSim of yours as a subject.

    Args:
        name: as `parse` takes it.
    Raises:
        ConfigError: the name is not well formed, or declares elements that the network has not.
        NotAvailable: mattersim is not installed, or there is no GPU.
        ModelError: the file is absent, or holds nothing that can be used.
    """
    checkpoint = parse(name)
    how = "Take a checkpoint as mattersim's training saves it."
    network = _read(checkpoint.name, checkpoint.path, device, how)
    elements = checkpoint.elements(_elements(network))
    card = checkpoint.card(elements=elements, properties=PROPERTIES)
    named = {"elements": checkpoint.declared.get("elements", "")}
    return _subject(checkpoint.name, network, card, named)


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


def _read(name: str, path: Path, device: str, how: str) -> Any:
    """mattersim's own network with the weights of a file; how: what to do about another one."""
    try:
        with others_warnings():
            import torch
            from mattersim.forcefield.m3gnet.m3gnet import M3Gnet
            from mattersim.forcefield.potential import MatterSimCalculator  # noqa: F401
    except ImportError as error:
        raise NotAvailable(
            f"{name} needs mattersim ({words(error)}). Install it: {INSTALL}"
        ) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise NotAvailable(f"{name} on cuda: torch finds no GPU. Use --device cpu.")
    content = read_tensors(path, how)
    settings, state = content.get("model_args"), content.get("model")
    if not isinstance(settings, dict) or not isinstance(state, dict):
        raise ModelError(
            f"{path} is no MatterSim checkpoint: it has no model and model_args. {how}"
        )
    if (kind := content.get("model_name")) != "m3gnet":
        raise ModelError(f"{path} holds a {kind!r}; mattersim 1.2.3 computes only 'm3gnet'.")
    try:
        with others_warnings():
            network = M3Gnet(device=device, **settings)
            # as mattersim does, not strictly, but nothing may stay at its random start
            missing = set(network.load_state_dict(state, strict=False).missing_keys)
    except Exception as error:  # whatever mattersim and torch make of other settings
        raise ModelError(
            f"{path}: the weights do not fit the network of their own settings ({words(error)}). "
            f"{how}"
        ) from None
    learned = {name for name, _ in network.named_parameters()} | {
        name for name in network.state_dict() if name.startswith("normalizer.")
    }
    if absent := sorted(missing & learned):
        raise ModelError(
            f"{path} lacks {len(absent)} of the network's parameters, first {absent[0]}, and they "
            f"would stay random. {how}"
        )
    refuse_not_finite(network.state_dict(), path)
    return network.to(device).eval()


def _elements(network: Any) -> frozenset[int]:
    return frozenset(range(1, min(network.model_args["max_z"], len(SYMBOLS)) + 1))


def _subject(
    name: str, network: Any, card: Card, settings: Mapping[str, str] | None = None
) -> AseModel:
    from mattersim.forcefield.potential import MatterSimCalculator, Potential

    device = next(network.parameters()).device.type
    with others_warnings():
        calculator = MatterSimCalculator(
            potential=Potential(network, device=device), device=device, args_dict={}
        )
    return AseModel(
        Here(Held(calculator)),
        identity=Identity(
            name=name,
            weights_sha256=state_sha256(network.state_dict()),
            settings={
                "engine": f"{ENGINE}, ase {ASE_ENGINE}",
                "dtype": "float32",
                "device": device,
                "mattersim": version("mattersim"),
                **{key: str(value) for key, value in sorted(network.model_args.items())},
                **(settings or {}),
            },
        ),
        card=card,
    )
