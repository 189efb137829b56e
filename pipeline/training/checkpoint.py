"""The checkpoint that training writes after every epoch, and within long ones, and resumes from.

The line of metrics.jsonl is written first, the checkpoint last: a line whose checkpoint was not written is dropped on
resuming. Of short epochs two checkpoints a second are written, and the newest where training ends, unless it is killed.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.cache.io.opening import open_read
from decant.pipeline.errors import DamagedError, RankError
from decant.pipeline.support.archives import require_fair, require_intact
from decant.pipeline.training.averaging import Average
from decant.pipeline.training.choosing import Choice
from decant.pipeline.training.epoch_log import CHECKPOINT, append_epoch, keep_epochs
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.partial_epoch import PartialEpoch, require_part

_SECONDS = 0.5  # between two checkpoints, which cost a tenth of training where epochs take less

Write = Callable[[Path, memoryview], None]
"""Writes a file of so much content."""


class Kept(NamedTuple):
    """What of a training a checkpoint keeps."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    average: Average | None = None
    choice: Choice | None = None


class Resumed(NamedTuple):
    """Where training goes on."""

    epoch: int
    """Epochs that are done."""
    within: dict[str, Any] | None
    """What `PartialEpoch.state` returned of the next one; None where that begins anew."""


class SparingWriter:
    """Writes a file at most every so many seconds; what is newer waits until the next call, or until `flush`.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path, write = Path(folder.name, "file"), SparingWriter()
    >>> for content in (b"first", b"second", b"third"):
    ...     write(path, memoryview(content))
    >>> path.read_bytes()
    b'first'
    >>> write.flush()
    >>> path.read_bytes()
    b'third'
    >>> folder.cleanup()
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds, self._next = seconds, -math.inf
        self._waiting: tuple[Path, memoryview] | None = None

    def __call__(self, path: Path, content: memoryview) -> None:
        """Writes the file, or keeps its content in memory if it is too early."""
        self.keep(path, content)
        self.write_due()

    def keep(self, path: Path, content: memoryview) -> None:
        """Keeps the content in memory, for `write_due` or `flush`."""
        self._waiting = (path, content)

    def write_due(self) -> None:
        """Writes what is waiting, unless it is too early."""
        if time.monotonic() >= self._next:
            self.flush()

    def at_once(self, path: Path, content: memoryview) -> None:
        """Writes the file whenever it was written last."""
        self._waiting = (path, content)
        self.flush()

    def flush(self) -> None:
        """Writes what is waiting, if anything is."""
        # A thread may write it meanwhile, where a signal has ended the wait for that.
        waiting = self._waiting
        if waiting is not None:
            write_atomically(*waiting)
            self._waiting, self._next = None, time.monotonic() + self._seconds


def resume(folder: Path, kept: Kept, group: Group = ALONE) -> Resumed:
    """Loads the checkpoint of `folder` where there is one; returns how far it is. Of several ranks, the first reads it
    for all. Raises DamagedError for a file that is no checkpoint of this network.
    """
    path, (network, optimizer, scaler, average, choice) = folder / CHECKPOINT, kept
    try:
        saved = group.of_first(lambda: _read(path))
        if saved is None:
            if group.is_first:
                keep_epochs(folder, 0)
            return Resumed(0, None)
        epoch = saved["epoch"]
        if type(epoch) is not int or epoch < 0:
            raise ValueError(f"epoch: expected a number of epochs, found {epoch!r:.40}")
        _require_fits(network, optimizer, saved)
        if "within" in saved:
            require_part(saved["within"])
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        if scaler is not None:
            scaler.load_state_dict(saved["scaler"])
        if average is not None:
            _require_weights("average", network, saved["average"]["weights"])
            average.load(saved["average"])
        if choice is not None:
            _require_weights("choice", network, saved["choice"]["weights"])
            choice.load(saved["choice"])
    except RankError:
        raise
    except Exception as error:  # a file that is no checkpoint may end in any error of what reads it
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedError(
            f"{path}: not a checkpoint of this network ({reason}); delete it to begin this network anew"
        ) from error
    if group.is_first:
        keep_epochs(folder, epoch)
    return Resumed(epoch, saved.get("within"))


def _read(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds, unchecked; None where there is none."""
    if not os.path.lexists(path):
        return None
    with open_read(path, follow=False) as file:
        require_fair(file)
        require_intact(file)
        return torch.load(file, map_location="cpu", weights_only=True)


def save_epoch(
    folder: Path, kept: Kept, epoch: int, metrics: dict[str, Any], write: Write = write_atomically
) -> None:
    """Writes the metrics of an epoch, then the checkpoint after it; `epoch` counts from 1."""
    append_epoch(folder, metrics)
    save_checkpoint(folder, kept, epoch, write=write)


def save_checkpoint(
    folder: Path, kept: Kept, epoch: int, within: PartialEpoch | None = None, write: Write = write_atomically
) -> None:
    """Writes the checkpoint after `epoch` epochs and the part of the next one that is done, by `write`."""
    network, optimizer, scaler, average, choice = kept
    saved = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    if scaler is not None:
        saved["scaler"] = scaler.state_dict()
    if average is not None:
        saved["average"] = average.state()
    if choice is not None:
        saved["choice"] = choice.state()
    if within is not None:
        saved["within"] = within.state()
    content = _with_checksums(saved)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / CHECKPOINT, content)


def _with_checksums(saved: dict[str, Any]) -> memoryview:
    """The content of a file, with checksums even where the process has told PyTorch to leave them out."""
    content = io.BytesIO()  # torch.save to a file would report a full disk with an error of its own
    as_set = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(saved, content)
    finally:
        torch.serialization.set_crc32_options(as_set)
    return content.getbuffer()


def _require_fits(network: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Raises ValueError, naming what is wrong, where the tensors of a checkpoint are not those of this network and its
    optimizer: dense, finite where the network's own are, of the same shapes and types.
    """
    _require_weights("network", network, saved["network"])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, state in saved["optimizer"]["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                _require_like(f"optimizer.state.{number}.{name}", value, parameters[number])
            elif isinstance(value, Tensor | float) and not math.isfinite(value):
                raise ValueError(f"optimizer.state.{number}.{name}: {value}")
    for group, theirs in zip(optimizer.param_groups, saved["optimizer"]["param_groups"], strict=True):
        for name, value in theirs.items():
            if name != "params" and _kind_of(value) != _kind_of(group.get(name)):
                raise ValueError(f"optimizer.{name}: expected {group.get(name)!r:.40}, found {value!r:.40}")


def _require_weights(part: str, network: nn.Module, weights: dict[str, Any]) -> None:
    """Raises ValueError where a part of a checkpoint has weights that are not those of this network; none is right."""
    own = network.state_dict()
    for name, tensor in weights.items():
        _require_like(f"{part}.{name}", tensor, own.get(name))
    if weights and weights.keys() != own.keys():
        raise ValueError(f"{part}: lacks {min(own.keys() - weights.keys())}")


def _require_like(name: str, tensor: object, own: Tensor | None) -> None:
    if own is None:
        raise ValueError(f"{name}: is unexpected")
    if (
        not isinstance(tensor, Tensor)
        or tensor.layout != torch.strided
        or tensor.is_meta
        or tensor.is_quantized
    ):
        raise ValueError(f"{name}: is no plain tensor")
    if (tensor.shape, tensor.dtype) != (own.shape, own.dtype):
        raise ValueError(
            f"{name}: is {tensor.dtype} {tuple(tensor.shape)}, expected {own.dtype} {tuple(own.shape)}"
        )
    if not bool((tensor.isfinite() | ~own.detach().cpu().isfinite()).all()):
        raise ValueError(f"{name}: has NaN or infinity")


def _kind_of(value: object) -> object:
    """What a setting of an optimizer is; of a number whether it is finite."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value)
    return tuple(map(_kind_of, value)) if isinstance(value, list | tuple) else type(value)
