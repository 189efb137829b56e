"""How long a network takes for its inputs, and on what that was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from decant.pipeline.training.device import Inputs, to_device

_WARM_UP = 10
_FEWEST = 5  # calls that are timed, however long they take


class Latency(NamedTuple):
    """Milliseconds of a call."""

    median: float
    p95: float
    """The 95th percentile."""


@torch.inference_mode()
def latency(network: nn.Module, inputs: Inputs, device: torch.device, repetitions: int = 50) -> Latency:
    """Of a batch, (1, …) as a rule, through a network in evaluation mode, until its outputs are on the host."""
    network.eval()
    inputs = to_device(inputs, device)
    return timed(lambda: network(inputs).cpu(), repetitions)


def timed(call: Callable[[], object], repetitions: int = 50, seconds: float = 10.0) -> Latency:
    """Of so many calls after 10 for warming up; where they take longer than `seconds`, of those that fit, at least 5,
    after as many for warming up as fit into a fifth of that.
    """
    _milliseconds(call, _WARM_UP, 1, seconds / 5)
    median, slow = np.percentile(_milliseconds(call, repetitions, _FEWEST, seconds), [50, 95])
    return Latency(float(median), float(slow))


def device_name(device: torch.device) -> str:
    """What a device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores" if device.type == "cpu" else device.type


def _milliseconds(call: Callable[[], object], count: int, fewest: int, seconds: float) -> list[float]:
    """Of each of `count` calls, or of those that begin within `seconds`, and of `fewest` at least."""
    times: list[float] = []
    first = time.perf_counter()
    while len(times) < count and (len(times) < fewest or time.perf_counter() - first < seconds):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return times
