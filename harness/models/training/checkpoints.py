"""The state of a training between two epochs, on disk: whole or not at all, never trusted unread.

One file an epoch: a line of JSON (format, what is trained, epoch, losses, sha256 of it all), then
tensors as torch writes them, read back with weights_only. The last two are kept, so that a file cut
short by a crash or a full disk costs one epoch.

Public: Checkpoint, Checkpoints, CheckpointWarning.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.data.columns import write_atomically
from harness.errors import DataError, ModelError, Remark

FORMAT = "mlip-claims checkpoint 1"
_KEPT = 2


class CheckpointWarning(Remark):
    """A checkpoint was damaged, and an earlier one or the start is used; or none can be written."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything the next epoch depends on."""

    epoch: int  # epochs done
    tensors: Mapping[str, Any]  # name -> tensor, flat
    record: Mapping[str, Any] = field(default_factory=dict)  # JSON-able: losses, counters, digests


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one training in one folder."""

    folder: Path
    key: Mapping[str, Any]  # JSON-able: what is trained, from what, on what

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write one and forget all but the last two.

        Where it cannot be written, the training goes on with a warning, and a killed one goes on
        from an earlier checkpoint.
        """
        import torch

        buffer = io.BytesIO()
        torch.save(dict(checkpoint.tensors), buffer)
        payload = buffer.getvalue()
        header = {
            "format": FORMAT,
            "key": self.key,
            "epoch": checkpoint.epoch,
            "record": checkpoint.record,
        }
        header["sha256"] = _sha256(header, payload)
        path = self.folder / f"epoch-{checkpoint.epoch:05d}.ckpt"

        def write(stream: IO[bytes]) -> None:
            stream.write(json.dumps(header, sort_keys=True).encode() + b"\n")
            stream.write(payload)

        try:
            write_atomically(path, write)
        except OSError as error:
            warnings.warn(
                f"could not write {path}: {error}. The training goes on, and one that is killed "
                "starts again from an earlier epoch. Free space, or name another folder in "
                "HARNESS_CACHE.",
                CheckpointWarning,
                stacklevel=2,
            )
            return path
        for old in self._paths()[:-_KEPT]:
            with suppress(OSError):
                old.unlink(missing_ok=True)
        return path

    @property
    def exist(self) -> bool:
        """Whether there is one."""
        return bool(self._paths())

    def last(self) -> Checkpoint | None:
        """The latest that can be read, or None. Damaged ones are passed over with a warning.

        Raises:
            DataError: it belongs to another training.
        """
        for path in reversed(self._paths()):
            try:
                return self.read(path)
            except ModelError as error:
                warnings.warn(str(error), CheckpointWarning, stacklevel=2)
        return None

    def read(self, path: Path) -> Checkpoint:
        """One checkpoint.

        Raises:
            DataError: it is of another training; the message says what differs.
            ModelError: it is damaged.
        """
        import torch

        try:
            head, _, payload = path.read_bytes().partition(b"\n")
            header = json.loads(head)
            if header["format"] != FORMAT:
                raise ValueError(f"its format is {header['format']!r}, this version reads {FORMAT}")
            if header.pop("sha256") != _sha256(header, payload):
                raise ValueError("its content does not match its checksum")
            key, epoch, record = header["key"], int(header["epoch"]), header["record"]
            tensors = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            if not isinstance(tensors, dict):
                raise TypeError(f"it holds a {type(tensors).__name__}, not tensors by name")
        except MemoryError:
            raise
        except OSError as error:
            raise ModelError(
                f"checkpoint {path} cannot be read ({error}). Allow it; until then the training "
                "goes on from an earlier one or starts again."
            ) from error
        except Exception as error:  # torch has many words for what is not its own
            raise ModelError(
                f"checkpoint {path} cannot be used ({type(error).__name__}: {error}). Delete it; "
                "the training goes on from an earlier one or starts again."
            ) from error
        if key != json.loads(json.dumps(self.key)):
            raise DataError(
                f"checkpoint {path} is of another training: {_difference(key, self.key)}. Name "
                "another folder, or delete it to start this training anew."
            )
        return Checkpoint(epoch=epoch, tensors=tensors, record=record)

    def discard(self) -> None:
        """Forget all of them, once the result is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.ckpt"))


def put_state(tensors: Mapping[str, Any], state: Mapping[str, Any], what: str) -> None:
    """Copy ``tensors`` into the tensors of ``state``, in place.

    Raises:
        ModelError: names or shapes differ: they are of another architecture.
    """
    import torch

    for name in sorted({*tensors, *state}):
        theirs = tuple(tensors[name].shape) if name in tensors else None
        ours = tuple(state[name].shape) if name in state else None
        if theirs != ours:
            raise ModelError(
                f"{what} is of another architecture: {name} has shape {theirs} there and {ours} "
                "here (None: it does not exist). Use it with the network it was written for."
            )
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[name])


def _sha256(header: Mapping[str, Any], payload: bytes) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + payload).hexdigest()


def _difference(theirs: Any, ours: Any, path: str = "") -> str:
    """The first few places where two JSON values differ, in words."""
    if isinstance(theirs, dict) and isinstance(ours, Mapping):
        found = [
            _difference(theirs.get(name), ours.get(name), f"{path}.{name}" if path else name)
            for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)
        ]
        return "; ".join(found[:3])
    return f"{path} is {theirs!r:.60} there and {ours!r:.60} here"
