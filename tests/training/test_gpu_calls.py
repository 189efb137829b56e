"""What is asked of a GPU, and in which order, seen on a processor: waits, streams and recordings."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch

from decant.pipeline.training.device import CopiedAhead, OnHost, stream_for
from decant.pipeline.training.on_device import DeviceViews
from decant.pipeline.training.recorded import Recorded, record_cuda_graph
from decant.pipeline.training.several import Branches
from tests.helpers.gpu_calls import GpuCalls, OnGpu

SECOND = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[GpuCalls]:
    yield GpuCalls(monkeypatch)
    stream_for.cache_clear()


def test_a_copy_to_the_host_is_waited_for_on_the_gpu_where_it_is_made(
    gpu: GpuCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is the current device: `--device cuda:1` does not make it that."""
    value: Any = OnGpu(gpu, "cuda:1").copied_by(monkeypatch)
    OnHost(value).wait()
    assert gpu.log[1:] == [
        "event in the usual stream of cuda:1",
        "the host waits for an event in the usual stream of cuda:1",
    ]


def test_what_is_computed_is_copied_beside_what_is_being_computed(
    gpu: GpuCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    value: Any = OnGpu(gpu, "cuda:0").copied_by(monkeypatch)
    OnHost({"one": value, "other": value}, computed=True).wait()
    beside = "stream 1 of cuda:0"
    copied = [f"used in {beside}", f"copy in {beside}"]
    assert gpu.log == [*copied, *copied, f"event in {beside}", f"the host waits for an event in {beside}"]


def test_inputs_that_are_copied_ahead_have_arrived(gpu: GpuCalls) -> None:
    moved = OnGpu(gpu, "cuda:1")

    class Inputs:
        device = torch.device("cpu")

        def to(self, device: torch.device, non_blocking: bool) -> OnGpu:
            gpu.log.append(f"copy in {gpu.current.name}")
            return moved

    given: Any = Inputs()
    assert CopiedAhead(SECOND)(given) is moved
    beside = "stream 1 of cuda:1"
    assert gpu.log == [
        f"copy in {beside}",
        "used in the usual stream of cuda:1",
        f"the host waits for {beside}",
    ]


def test_views_are_made_beside_what_is_computed_and_waited_for(gpu: GpuCalls) -> None:
    views, made = object.__new__(DeviceViews), OnGpu(gpu, "cuda:1")
    views._device, views._stream = SECOND, stream_for(SECOND, "views")
    with views.apart() as ready:
        gpu.log.append(f"work in {gpu.current.name}")
        given: Any = made
        assert ready(given) is made
    beside = "stream 1 of cuda:1"
    assert gpu.log == [
        f"work in {beside}",
        "used in the usual stream of cuda:1",
        f"the host waits for {beside}",
    ]


def test_work_is_recorded_on_the_gpu_where_its_inputs_are(gpu: GpuCalls) -> None:
    """That on another would be done once, and never again."""
    devices, value = list[int](), OnGpu(gpu, "cuda:1")

    def record(work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        devices.append(torch.cuda.current_device())
        return work(), lambda: None

    recorded, given = Recorded(lambda value: value, record), cast("torch.Tensor", value)
    for _ in range(5):
        assert recorded(given) is given
    assert devices == [1]


def test_each_branch_of_a_recording_waits_for_what_was_before_and_all_are_waited_for(gpu: GpuCalls) -> None:
    branches = Branches(2, torch.device("cuda", 0))

    def call(place: int) -> int:
        gpu.log.append(f"{place} in {gpu.current.name}")
        return place

    assert branches(call) == [0, 1]
    assert gpu.log == ["0 in the usual stream of cuda:0", "1 in the usual stream of cuda:0"]
    gpu.log.clear()
    assert record_cuda_graph(lambda: branches(call))[0] == [0, 1]
    trunk, *streams = (f"stream {number} of cuda:0" for number in (1, 2, 3))
    assert gpu.log == [
        *(line for place, one in enumerate(streams) for line in (f"{one} waits for {trunk}", f"{place} in {one}")),
        *(f"{trunk} waits for {one}" for one in streams),
    ]  # fmt: skip


def test_no_garbage_is_collected_while_work_is_recorded(gpu: GpuCalls) -> None:
    """A recording that is destroyed then, as that of the network before, fails the one that is being made."""
    result, replay = record_cuda_graph(gc.isenabled)
    assert (result, gc.isenabled(), gpu.log) == (False, True, [])
    replay()
    assert gpu.log == ["replay"]
    gc.disable()
    try:
        record_cuda_graph(gc.isenabled)
        assert not gc.isenabled(), "as it was"
    finally:
        gc.enable()


def test_memory_is_freed_where_little_is_left(gpu: GpuCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2 << 30)
    record_cuda_graph(lambda: gpu.log.append("work"))
    assert gpu.log == ["memory freed", "work"]


@pytest.mark.parametrize("refuses", [False, True])
def test_an_error_of_recorded_work_is_the_one_that_is_raised(gpu: GpuCalls, refuses: bool) -> None:
    """By which it is known that memory ran out; the end of a recording that was cut short is another error."""
    gpu.graph.refuses = refuses

    def work() -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        record_cuda_graph(work)
    assert not gpu.capturing
    assert gc.isenabled()
