"""A stand-in for `torch.cuda` that computes nothing and notes what is asked of a GPU, in order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from decant.pipeline.training.device import stream_for

_FIRST = torch.device("cuda", 0)


class Stream:
    """A stream, known by its name."""

    def __init__(self, gpu: GpuCalls, device: torch.device, name: str) -> None:
        self.gpu, self.device, self.name = gpu, device, f"{name} of {device}"

    def wait_stream(self, other: Stream) -> None:
        self.gpu.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.gpu.log.append(f"the host waits for {self.name}")


class Event:
    """An event of a stream."""

    def __init__(self, gpu: GpuCalls) -> None:
        self.gpu, self.name = gpu, ""

    def record(self, stream: Stream | None = None) -> None:
        self.name = (stream or self.gpu.current).name
        self.gpu.log.append(f"event in {self.name}")

    def synchronize(self) -> None:
        self.gpu.log.append(f"the host waits for an event in {self.name}")


class Graph:
    """A recording; `refuses` has its end fail, as that of work that was cut short does."""

    refuses = False

    def __init__(self, gpu: GpuCalls) -> None:
        self.gpu = gpu

    def capture_begin(self, **_: Any) -> None:
        self.gpu.capturing = True

    def capture_end(self) -> None:
        self.gpu.capturing = False
        if self.refuses:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.gpu.log.append("replay")


class GpuCalls:
    """Two GPUs, of which the first is the current one. Streams are named by device, and by order of creation."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log, self.capturing, self._made = list[str](), False, 0
        self.current = self._usual(_FIRST)
        self.graph = type("Graph", (Graph,), {})
        stand_ins: dict[str, Callable[..., Any]] = {
            "Stream": self._stream,
            "Event": lambda: Event(self),
            "CUDAGraph": lambda: self.graph(self),
            "stream": self._within,
            "device": self._on,
            "current_stream": self._current,
            "default_stream": self._usual,
            "synchronize": lambda device=None: None,
            "current_device": lambda: self.current.device.index,
            "mem_get_info": lambda device=None: (1 << 30, 1 << 31),
            "memory_reserved": lambda device=None: 0,
            "empty_cache": lambda: self.log.append("memory freed"),
            "is_current_stream_capturing": lambda: self.capturing,
        }
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        stream_for.cache_clear()

    def _current(self, device: torch.device = _FIRST) -> Stream:
        return self.current if device == self.current.device else self._usual(device)

    def _usual(self, device: torch.device) -> Stream:
        return Stream(self, device, "the usual stream")

    def _stream(self, device: torch.device) -> Stream:
        self._made += 1
        return Stream(self, device, f"stream {self._made}")

    def _on(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        return self._within(self._usual(device))

    @contextlib.contextmanager
    def _within(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before


class OnGpu:
    """A tensor (2,) of a GPU, of which only copies are asked for."""

    shape, dtype = torch.Size([2]), torch.float32

    def __init__(self, gpu: GpuCalls, device: str) -> None:
        self.gpu, self.device = gpu, torch.device(device)

    def stride(self) -> tuple[int]:
        return (1,)

    def clone(self) -> OnGpu:
        return self

    def record_stream(self, stream: Stream) -> None:
        self.gpu.log.append(f"used in {stream.name}")

    def copied_by(self, patch: pytest.MonkeyPatch) -> OnGpu:
        """Has `torch.empty_like` make places that note what is copied to them, and where."""
        patch.setattr(torch, "empty_like", lambda value, **_: self)
        return self

    def copy_(self, value: OnGpu, non_blocking: bool) -> OnGpu:
        assert non_blocking
        self.gpu.log.append(f"copy in {self.gpu.current.name}")
        return self
