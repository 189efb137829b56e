"""The latency of a network, and the name of the device that it is measured on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from decant.pipeline.support.modules import RAISED
from decant.pipeline.training.device import Inputs, to_device
from decant.pipeline.training.forward import name_error

_WARM_UP = 10
_FEWEST = 5  # calls that are timed, however long they take


class Latency(NamedTuple):
    """Milliseconds that a call takes."""

    median: float
    p95: float
    """The 95th percentile."""


@torch.inference_mode()
def latency(network: nn.Module, inputs: Inputs, device: torch.device, repetitions: int = 50) -> Latency:
    """Times the forward pass of one batch in evaluation mode, until the outputs are on the host. Raises
    ModelError where the network cannot take it.
    """
    network.eval()
    inputs = to_device(inputs, device)
    try:
        return timed(lambda: network(inputs).cpu(), repetitions)
    except RAISED as error:
        name_error(error, network, inputs, "failed")
        raise


def timed(call: Callable[[], object], repetitions: int = 50, seconds: float = 10.0) -> Latency:
    """Times `repetitions` calls, after 10 to warm up. Slow calls are repeated for about `seconds`, at least 5 times,
    after a warm-up of a fifth of that.
    """
    _milliseconds(call, _WARM_UP, 1, seconds / 5)
    median, slow = np.percentile(_milliseconds(call, repetitions, _FEWEST, seconds), [50, 95])
    return Latency(float(median), float(slow))


def device_name(device: torch.device) -> str:
    """The name of a device: the GPU's model, or the number of the CPU's cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores" if device.type == "cpu" else device.type


def _milliseconds(call: Callable[[], object], count: int, fewest: int, seconds: float) -> list[float]:
    """The milliseconds of each of `count` calls; those that would start after `seconds` are left out, but for the first
    `fewest`.
    """
    times: list[float] = []
    first = time.perf_counter()
    while len(times) < count and (len(times) < fewest or time.perf_counter() - first < seconds):
        started = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - started))
    return times
