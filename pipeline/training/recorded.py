"""Work that a GPU repeats, recorded once as a CUDA graph and replayed: hundreds of small kernels are started by one
call, where a small network would otherwise wait for the processor.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import torch
from torch import Tensor

from decant.pipeline.training.device import stream_for

Result = TypeVar("Result")
Function = Callable[..., Result]
Recorder = Callable[[Callable[[], Result]], tuple[Result, Callable[[], None]]]
"""Takes work without arguments; returns its results, which every replay fills anew, and what replays it. The results
hold nothing before the first replay.
"""

_EAGER_CALLS = 3
_OTHERS_MAY_GO_ON = "thread_local"


class Recorded(Generic[Result]):
    """`function(*tensors)`, recorded after a few calls with tensors of the same shapes, and replayed from then on.

    The function must do the same for any values: no choice by a value, no copy from or to the host. What a replay
    returns is overwritten by the next one. Tensors of other shapes, as those of a last batch, are computed as ever.
    """

    def __init__(self, function: Function[Result], record: Recorder[Result] | None = None) -> None:
        """`record` is that of CUDA where it is None."""
        self._function = function
        self._record: Recorder[Result] = record or record_cuda_graph
        self._replay: Callable[[], None] | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._result: Result | None = None
        self._calls = 0

    def __call__(self, *tensors: Tensor) -> Result:
        if not _alike(tensors, self._inputs):
            if self._replay is None:
                self._inputs, self._calls = tensors, 1
            return self._function(*tensors)
        if self._replay is None:
            self._calls += 1
            if self._calls <= _EAGER_CALLS:
                return self._function(*tensors)
            self._inputs = tuple(tensor.clone() for tensor in tensors)
            with _current(tensors[0].device):
                self._result, self._replay = self._record(lambda: self._function(*self._inputs))
        for place, tensor in zip(self._inputs, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._replay()
        assert self._result is not None
        return self._result


def record_cuda_graph(work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
    """Records what `work` starts on the current device, without running it. Other threads may use it meanwhile. Raises
    what `work` raises.

    Where a device has little left, what memory PyTorch holds for later is freed first. `torch.cuda.graph` always does
    so, pinned memory of the host too, which everybody then waits to get again.
    """
    graph = torch.cuda.CUDAGraph()
    stream = stream_for(torch.device("cuda", torch.cuda.current_device()), "recording")
    torch.cuda.synchronize()
    if torch.cuda.mem_get_info()[0] < torch.cuda.memory_reserved():
        gc.collect()  # recordings of networks that are finished
        torch.cuda.empty_cache()
    with _uncollected(), torch.cuda.stream(stream):
        graph.capture_begin(capture_error_mode=_OTHERS_MAY_GO_ON)
        try:
            result = work()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # that the recording is cut short, which would hide why
                graph.capture_end()
            raise
        graph.capture_end()
    return result, graph.replay


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Within it Python collects no garbage: CUDA refuses to destroy a recording, as of a network that is finished,
    while the thread that does it makes another, which then fails.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _current(device: torch.device) -> AbstractContextManager[object]:
    """Within it, a GPU is the one whose streams are recorded: work on another would be done once and never again."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _alike(tensors: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    """Whether they have the same shapes, dtypes and memory formats, pair by pair."""
    return len(tensors) == len(others) and all(
        one.shape == other.shape and one.dtype == other.dtype and one.stride() == other.stride()
        for one, other in zip(tensors, others, strict=True)
    )
