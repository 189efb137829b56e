"""The footprint of a finished network: multiply-adds, latency and memory of a forward pass.

It is measured once on each kind of machine, and saved in RUN/footprint.json.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.autograd.profiler import profile
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from decant.cache.io.opening import read_file
from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.latency import device_name, latency
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.checked_json import MOST_BYTES, Amount, Whole
from decant.pipeline.training.device import Inputs, to_device
from decant.pipeline.views import ViewedData

FOOTPRINT = "footprint.json"
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class BatchCost:
    """The cost of a forward pass of one batch."""

    size: Whole
    latency_ms: Amount
    """The median, until the outputs are on the host."""
    latency_p95_ms: Amount
    """The 95th percentile."""
    peak_bytes: Whole | None
    """See `peak_bytes`."""


@dataclass(frozen=True)
class Footprint:
    """The cost of a network in evaluation mode and float32, on inputs of the test split."""

    multiply_adds: Whole
    """For the first input; see `multiply_adds`."""
    batches: tuple[BatchCost, ...]
    """One for each of BATCH_SIZES."""
    weights_sha256: str
    machine: str
    """The name of the device."""
    threads: Whole
    """The threads that PyTorch uses on a CPU."""
    torch: str
    """The version of PyTorch."""


_FOOTPRINT = TypeAdapter(Footprint)


def measure_footprint(result: Result, test: ViewedData, device: torch.device) -> Footprint:
    """The footprint of a finished network, measured now or read from its folder.

    A saved footprint is used if it is of the same weights, device name, number of threads and version of PyTorch. If
    there are fewer test inputs than a batch has, they are repeated. Raises WeightsError as `load_network` does.
    """
    conditions = (result.weights_sha256, device_name(device), torch.get_num_threads(), str(torch.__version__))
    saved = _read(result.folder / FOOTPRINT)
    if saved and (saved.weights_sha256, saved.machine, saved.threads, saved.torch) == conditions:
        return saved
    network = load_network(result).to(device)
    batches = [_batch(test, size, device) for size in BATCH_SIZES]
    costs = tuple(_cost(network, *batch, device) for batch in zip(BATCH_SIZES, batches, strict=True))
    measured = Footprint(multiply_adds(network, batches[0]), costs, *conditions)
    with contextlib.suppress(OSError):
        write_json(result.folder / FOOTPRINT, asdict(measured))
    return measured


@torch.inference_mode()
def multiply_adds(network: nn.Module, inputs: Inputs) -> int:
    """The multiply-adds of one forward pass over `inputs`, which are on the network's device: half the operations that
    PyTorch counts for convolutions and matrix products, and so for linear, attention and recurrent layers.

    Elementwise operations, normalisation, pooling, embeddings and matrix-vector products are not counted.
    """
    network.eval()
    with _one_operation_a_kernel(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def peak_bytes(network: nn.Module, inputs: Inputs, device: torch.device) -> int | None:
    """The peak memory of one forward pass, in bytes: weights, buffers and inputs, and the most that activations,
    outputs and temporary tensors take at one time. None on a device that does not report it.

    The network is on the device. Workspaces that a library allocates once are not counted.
    """
    network.eval()
    inputs = to_device(inputs, device)
    network(inputs)  # allocates what later passes use again
    if device.type == "cpu":
        held = _peak_on_cpu(network, inputs)
    elif device.type == "cuda":
        held = _peak_on_cuda(network, inputs, device)
    else:
        return None
    given = inputs.values() if isinstance(inputs, dict) else [inputs]
    there = [*network.parameters(), *network.buffers(), *given]
    return held + sum(tensor.nbytes for tensor in there)


def _read(path: Path) -> Footprint | None:
    """The saved footprint; None if the file is missing, damaged or of other batch sizes."""
    try:
        saved = _FOOTPRINT.validate_json(read_file(path, follow=False, most=MOST_BYTES), strict=True)
    except (OSError, ValueError):
        return None
    return saved if tuple(cost.size for cost in saved.batches) == BATCH_SIZES else None


def _batch(test: ViewedData, size: int, device: torch.device) -> Inputs:
    indices = np.arange(size) % len(test)
    inputs, _ = test.batch(indices.tolist())
    return to_device(inputs, device)


def _cost(network: nn.Module, size: int, inputs: Inputs, device: torch.device) -> BatchCost:
    median, slow = latency(network, inputs, device)
    return BatchCost(size, median, slow, peak_bytes(network, inputs, device))


@contextlib.contextmanager
def _one_operation_a_kernel() -> Iterator[None]:
    """Disables kernels that compute a whole layer, whose products the counter does not see."""
    fast, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        with torch.backends.cudnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.mkldnn.enabled = onednn


def _peak_on_cpu(network: nn.Module, inputs: Inputs) -> int:
    """The largest sum of bytes that were allocated and not yet freed."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler notes on stderr that it started
    with profile(profile_memory=True) as recorded:
        network(inputs)
    assert recorded.kineto_results is not None  # as the profile has ended
    events = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(np.cumsum(changes, dtype=np.int64).tolist(), default=0)


def _peak_on_cuda(network: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """The most that the allocator held, less what it held before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(inputs)
    return torch.cuda.max_memory_allocated(device) - before
