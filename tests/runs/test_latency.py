"""What is timed is one input through the network as it is used."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from decant.pipeline.runs.latency import device_name, latency, timed
from tests.helpers.small import CPU


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
    found = latency(network, torch.zeros(1, 3), CPU, repetitions=5)
    assert network.shapes == {(1, 3)}
    assert network.calls == 15
    assert found.p95 >= found.median >= 2, found


def test_what_is_slow_now_and_then_is_the_95th_percentile_and_not_the_median() -> None:
    calls = 0

    def slow_once_in_ten() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.05 if calls % 10 == 0 else 0)

    found = timed(slow_once_in_ten, repetitions=20)
    assert found.p95 >= 50 > found.median, found


def test_a_slow_call_is_repeated_a_few_times_only() -> None:
    calls: list[None] = []
    timed(lambda: calls.append(None), repetitions=50, seconds=0)
    assert len(calls) == 1 + 5
    timed(lambda: calls.append(None), repetitions=50)
    assert len(calls) == 6 + 10 + 50


def test_a_device_has_a_name() -> None:
    assert device_name(CPU).startswith("CPU, ")
