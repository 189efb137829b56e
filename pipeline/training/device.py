"""Which device computes, in which precision, and how a batch gets there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

from decant.pipeline.errors import DeviceError
from decant.pipeline.ranks.process_group import local_device

Inputs = Tensor | dict[str, Tensor]
"""(B, …) images or features; or {name: (B, L)} of texts: token ids and their mask."""


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is the first of cuda, mps and cpu that is there. Ranks of a job on one machine
    get different GPUs, as far as there are. Raises DeviceError for one that is not there.
    """
    if name != "auto":
        return local_device(_device(name))
    if torch.cuda.is_available():
        return local_device(torch.device("cuda"))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def devices_in_turn(name: str, processes: int) -> list[str]:
    """The device of each of several processes of one machine: its GPUs in turn, unless one device is named.

    >>> devices_in_turn("cpu", 2)
    ['cpu', 'cpu']
    """
    count = torch.cuda.device_count() if name in ("auto", "cuda") else 0
    return [f"cuda:{process % count}" if count else name for process in range(processes)]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context that computes in bfloat16 or float16 where `precision` is that, and changes nothing otherwise."""
    dtype = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "float32")


def make_scaler(device: torch.device, precision: str, setting: str) -> torch.amp.GradScaler | None:
    """What keeps gradients of float16 from vanishing: they are scaled up before, and down after the backward pass, and
    a step is left out where they overflow (Micikevicius et al., "Mixed Precision Training", 2018). None for any other
    precision. Raises DeviceError, naming `setting`, where the device cannot compute so.
    """
    if precision != "float16":
        return None
    try:
        weight = torch.ones(2, 2, device=device, requires_grad=True)
        scaler = torch.amp.GradScaler(device.type)
        with autocast(device, precision):
            outputs = torch.ones(2, 2, device=device) @ weight
        scaler.scale(outputs.sum()).backward()
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DeviceError(
            f'{setting}: "float16" cannot be trained on {device.type} here ({reason}); set "bfloat16" or "float32"'
        ) from None
    return scaler if outputs.dtype == torch.float16 else _refuse(device, setting)


def _refuse(device: torch.device, setting: str) -> torch.amp.GradScaler:
    raise DeviceError(f'{setting}: "float16" is not computed on {device.type}; set "bfloat16" or "float32"')


def to_device(inputs: Inputs, device: torch.device, channels_last: bool = False) -> Inputs:
    """The inputs on a device, to which they may still be copying; images in the channels_last memory format where that
    is true.
    """
    if isinstance(inputs, dict):
        return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
    moved = inputs if inputs.device == device else inputs.to(device, non_blocking=True)
    if channels_last and moved.ndim == 4:
        return _channels_last(moved)
    return moved


def _channels_last(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in the channels_last memory format: of three channels on a processor in half the time that
    `contiguous` takes.
    """
    if images.is_contiguous(memory_format=torch.channels_last):
        return images
    if images.shape[1] != 3 or images.device.type != "cpu" or not images.is_contiguous():
        return images.contiguous(memory_format=torch.channels_last)
    return torch.stack(images.unbind(1), dim=-1).permute(0, 3, 1, 2)


class CopiedAhead:
    """`copied(inputs)` → the inputs on a device, arrived there. To a GPU they are copied beside what it computes, from
    page-locked memory at best; the caller waits for them, as one may who makes the next batch.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = stream_for(device, "inputs") if device.type == "cuda" else None

    def __call__(self, inputs: Inputs) -> Inputs:
        if self._stream is None:
            return to_device(inputs, self._device)
        others = torch.cuda.default_stream(self._device)
        with torch.cuda.stream(self._stream):
            moved = to_device(inputs, self._device)
            for value in moved.values() if isinstance(moved, dict) else [moved]:
                value.record_stream(others)
        self._stream.synchronize()
        return moved


class OnHost:
    """A copy on the host of tensors of a device, on its way: what the device computes next does not wait for it."""

    def __init__(self, values: Inputs, computed: bool = False) -> None:
        """Starts the copy. What lies on the host already is not copied. Of what is `computed`, nothing is waited for,
        and the copy goes beside what the device computes.
        """
        self._event: torch.cuda.Event | None = None
        first = next(iter(values.values())) if isinstance(values, dict) else values
        stream = stream_for(first.device, "results") if computed and first.device.type == "cuda" else None
        # Without a stream `torch.cuda.stream` fails where there is an MPS device.
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            if isinstance(values, dict):
                self._values: Inputs = {name: self._copy(value, stream) for name, value in values.items()}
            else:
                self._values = self._copy(values, stream)
            if self._event is not None:  # where the copy is, which need not be the current device
                self._event.record(torch.cuda.current_stream(first.device))

    def wait(self) -> Any:
        """The tensor, or dictionary of tensors, when the copy has arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._values

    def _copy(self, value: Tensor, stream: torch.cuda.Stream | None) -> Tensor:
        if value.device.type != "cuda":
            return value.cpu()
        self._event = self._event or torch.cuda.Event()
        if stream is not None:
            value.record_stream(stream)
        return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value, non_blocking=True)


@contextmanager
def beside(device: torch.device, purpose: str, *used: Tensor) -> Iterator[None]:
    """Runs the block in a stream of its own on a GPU, after what was started there before: what is started next waits
    for nothing of it, and whoever copies a result to the host does so within the block. used: tensors of the usual
    stream that the block reads. Elsewhere the block runs as it is.
    """
    if device.type != "cuda":
        yield
        return
    stream = stream_for(device, purpose)
    stream.wait_stream(torch.cuda.current_stream(device))
    for tensor in used:
        tensor.record_stream(stream)  # its memory is free for others once the block has read it
    with torch.cuda.stream(stream):
        yield


@cache
def stream_for(device: torch.device, purpose: str) -> torch.cuda.Stream:
    """The stream of a GPU for a purpose, the same each time. PyTorch has 32, and then hands out the same ones again:
    what a thread does on one that is being recorded meanwhile would be recorded.
    """
    return torch.cuda.Stream(device)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1).cpu()  # a name alone does not show that the device works
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        if "device string" in reason:  # and every kind of device that PyTorch has a name for
            reason = "PyTorch knows no such device; a GPU is cuda, or mps on a Mac"
        raise DeviceError(f"--device {name}: cannot be used here ({reason}); try auto or cpu") from None
    return device
