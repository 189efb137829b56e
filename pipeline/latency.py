"""How long a network takes for one input, and on what that was measured."""

from __future__ import annotations

import os
import time

import numpy as np
import torch
from torch import nn

from pipeline.inputs import Inputs, to_device

_WARM_UP = 10


@torch.inference_mode()
def latency_ms(network: nn.Module, inputs: Inputs, device: torch.device, repetitions: int = 50) -> float:
    """Median milliseconds of a batch, (1, …) as a rule, through a network in evaluation mode, warmed up, until its
    outputs are on the host.
    """
    network.eval()
    inputs = to_device(inputs, device)
    times = []
    for _ in range(_WARM_UP + repetitions):
        started = time.perf_counter()
        network(inputs).cpu()
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[_WARM_UP:]))


def machine(device: torch.device) -> str:
    """What a device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores" if device.type == "cpu" else device.type
