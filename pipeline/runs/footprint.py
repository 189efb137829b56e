"""What a finished network costs to run: multiply-adds, latency and memory, measured once a machine and kept in
RUN/footprint.json.
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

from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.latency import device_name, latency
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.device import Inputs, to_device
from decant.pipeline.views import ViewedData

FOOTPRINT = "footprint.json"
BATCH_SIZES = (1, 32)


@dataclass(frozen=True)
class BatchCost:
    """What one forward pass of a batch takes."""

    size: int
    latency_ms: float
    """The median, until the outputs are on the host."""
    latency_p95_ms: float
    """The 95th percentile."""
    peak_bytes: int | None
    """See `peak_bytes`."""


@dataclass(frozen=True)
class Footprint:
    """A network's costs in evaluation mode and float32, on inputs of the test part."""

    multiply_adds: int
    """Of the first input; see `multiply_adds`."""
    batches: tuple[BatchCost, ...]
    """One for each of BATCH_SIZES."""
    weights_sha256: str
    machine: str
    threads: int
    """That PyTorch computes with on a processor."""
    torch: str
    """The version of PyTorch."""


_KEPT = TypeAdapter(Footprint)


def of_run(result: Result, test: ViewedData, device: torch.device) -> Footprint:
    """The footprint of a finished network: from its folder where one of the same weights was measured on such a
    machine, with as many threads and this PyTorch; else measured now, and kept there if the folder can be written to.

    Where there are fewer test inputs than a batch has, they are repeated. Raises WeightsError as `networks.load` does.
    """
    asked = (result.weights_sha256, device_name(device), torch.get_num_threads(), str(torch.__version__))
    kept = _read(result.folder / FOOTPRINT)
    if kept is not None and (kept.weights_sha256, kept.machine, kept.threads, kept.torch) == asked:
        return kept
    network = load_network(result).to(device)
    batches = [_batch(test, size, device) for size in BATCH_SIZES]
    costs = tuple(_cost(network, *batch, device) for batch in zip(BATCH_SIZES, batches, strict=True))
    measured = Footprint(multiply_adds(network, batches[0]), costs, *asked)
    with contextlib.suppress(OSError):
        write_json(result.folder / FOOTPRINT, asdict(measured))
    return measured


@torch.inference_mode()
def multiply_adds(network: nn.Module, inputs: Inputs) -> int:
    """Of one forward pass over `inputs`, which lie where the network does: half the operations that PyTorch counts for
    convolutions and products of matrices, and so for linear, attention and recurrent layers.

    Not counted are elementwise operations, normalisation, pooling, embeddings, and products with a single vector.
    """
    network.eval()
    with _one_operation_a_kernel(), FlopCounterMode(display=False) as counter:
        network(inputs)
    return int(counter.get_total_flops()) // 2


@torch.inference_mode()
def peak_bytes(network: nn.Module, inputs: Inputs, device: torch.device) -> int | None:
    """Bytes of weights, buffers and inputs, and the most that one forward pass holds beside them at once: activations,
    outputs and what operators use in between. None of a device that does not tell.

    The network lies on the device. A library's own workspace, once it is there, is not counted.
    """
    network.eval()
    inputs = to_device(inputs, device)
    network(inputs)  # what is made once and kept belongs to no pass
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
    """What is kept; None of a file that is missing, damaged or of other batches."""
    try:
        kept = _KEPT.validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError):
        return None
    return kept if tuple(cost.size for cost in kept.batches) == BATCH_SIZES else None


def _batch(test: ViewedData, size: int, device: torch.device) -> Inputs:
    indices = np.arange(size) % len(test)
    inputs, _ = test.batch(indices.tolist())
    return to_device(inputs, device)


def _cost(network: nn.Module, size: int, inputs: Inputs, device: torch.device) -> BatchCost:
    median, slow = latency(network, inputs, device)
    return BatchCost(size, median, slow, peak_bytes(network, inputs, device))


@contextlib.contextmanager
def _one_operation_a_kernel() -> Iterator[None]:
    """PyTorch without the kernels that compute a whole layer, whose products no counter sees."""
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
    """The largest sum of what was allocated and not yet freed."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler notes on stderr that it started
    with profile(profile_memory=True) as found:
        network(inputs)
    assert found.kineto_results is not None  # as the profile has ended
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(np.cumsum(changes, dtype=np.int64).tolist(), default=0)


def _peak_on_cuda(network: nn.Module, inputs: Inputs, device: torch.device) -> int:
    """What the allocator held at most, without what it held before."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    network(inputs)
    return torch.cuda.max_memory_allocated(device) - before
