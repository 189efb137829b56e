"""What is timed is one input through the network as it is used."""

from __future__ import annotations

import time

import torch
from small import CPU
from torch import Tensor, nn

from pipeline.latency import latency_ms, machine


class Slow(nn.Module):
    """Takes 2 ms in evaluation mode, and 20 while it is still warming up."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.shapes: set[tuple[int, ...]] = set()

    def forward(self, inputs: Tensor) -> Tensor:
        assert not self.training
        self.calls += 1
        self.shapes.add(tuple(inputs.shape))
        time.sleep(0.02 if self.calls <= 10 else 0.002)
        return inputs


def test_it_is_the_time_of_one_input_once_the_network_is_warm() -> None:
    network = Slow()
    found = latency_ms(network, torch.zeros(1, 3), CPU, repetitions=5)
    assert network.shapes == {(1, 3)}
    assert network.calls == 15
    assert found >= 2, found


def test_a_device_has_a_name() -> None:
    assert machine(CPU).startswith("CPU, ")
