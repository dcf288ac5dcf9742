"""Weights in files: how a file of yours is named as a subject, and read as tensors alone.

`chgnet:PATH`, `sevennet:PATH` and `mattersim:PATH` take `?card.theory=PBE` and the like, because a
file does not say what it was trained on (`cards.query_of`).

Public: Checkpoint, parse, read_tensors, refuse_not_finite, state_sha256.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.elements import SYMBOLS
from harness.errors import ConfigError, ModelError
from harness.models.cards import DECLARABLE, Card, elements_named, query_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file with weights, what else its name asks for, and what it declares of them."""

    name: str  # what reports call it: without its folder and what is declared
    path: Path
    asked: Mapping[str, str]
    declared: Mapping[str, str]

    def elements(self, known: frozenset[int]) -> frozenset[int]:
        """Which of the elements that its network has a row for it is to be asked about.

        Raises:
            ConfigError: one is declared that the network has not.
        """
        if (named := self.declared.get("elements")) is None:
            return known
        asked_about = elements_named(named)
        if strange := sorted(asked_about - known):
            raise ConfigError(
                f"card.elements={named}: the network of {self.path.name} has no "
                f"{', '.join(SYMBOLS[z - 1] for z in strange)}"
            )
        return asked_about

    def card(self, **known: Any) -> Card:
        """What is declared of it, and what its adapter knows: elements, properties."""
        said: dict[str, Any] = {**self.declared, **known}
        return Card(source="its name" if self.declared else "", **said)


def parse(
    name: str,
    prefix: str,
    *,
    takes: Sequence[str] = (),
    declarable: Sequence[str] = DECLARABLE,
) -> Checkpoint:
    """The parts of a `prefix:PATH?card.key=value` name; nothing is read.

    Args:
        prefix: with its colon.
        takes: keys besides declarations that this kind of file has a use for.
        declarable: what may be declared of it.
    Raises:
        ConfigError: it is not of that form.
    """
    how = f"Write {prefix}PATH?card.theory=PBE"
    path = name.removeprefix(prefix).partition("?")[0]
    if not path:
        raise ConfigError(f"{name!r} names no file. {how}")
    asked, declared = query_of(name, how, declarable)
    if strange := [key for key in asked if key not in takes]:
        known = [*takes, *(f"card.{field}" for field in declarable)]
        raise ConfigError(f"{strange[0]!r} in {name!r} means nothing; there are {', '.join(known)}")
    query = "&".join(f"{key}={text}" for key, text in asked.items())
    return Checkpoint(
        name=f"{prefix}{Path(path).name}{'?' if query else ''}{query}",
        path=Path(path).expanduser(),
        asked=asked,
        declared=declared,
    )


def read_tensors(path: Path, how: str, allowed: Sequence[Any] = ()) -> dict[str, Any]:
    """What a file holds on the CPU, read without running anything that is in it.

    Args:
        how: what to do about a file that cannot be read so.
        allowed: types besides torch's own that only hold numbers.
    Raises:
        ModelError: there is no such file, or it holds something else than a dictionary.
    """
    import torch

    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(allowed)):
            warnings.simplefilter("ignore")  # of what then fails: the error below says it
            held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"there is no file {path}; name a checkpoint that is there") from None
    except Exception as error:  # whatever torch, pickle and zipfile make of the bytes
        # torch advises to run what is in the file; what it found stands behind that
        found = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        what = f"{type(error).__name__}: {found.partition(' Please')[0]}"[:200]
        raise ModelError(f"{path} cannot be read as tensors alone ({what}). {how}") from None
    if not isinstance(held, dict):
        raise ModelError(f"{path} holds a {type(held).__name__}, not a dictionary of weights")
    return held


def refuse_not_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raises ModelError naming the first parameter that is not finite, if there is one."""
    for name, values in state.items():
        if not bool(values.isfinite().all()):
            raise ModelError(
                f"{path.name}: {name} holds numbers that are not finite, so nothing it predicts "
                "would be. A training that diverged leaves such a file; take an earlier one."
            )


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 of names, types, shapes and little-endian bytes, in the order of the names."""
    digest = hashlib.sha256(b"state-1\0")
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
