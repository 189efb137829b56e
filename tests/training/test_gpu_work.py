"""What training and measuring start on a GPU and wait for, counted on a processor."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.objectives import kd
from decant.pipeline.training import evaluation
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.optimizer import make_optimizer
from decant.pipeline.training.several import SeveralNetworks, _each_loss, _SeveralSteps
from decant.pipeline.training.step import Step
from tests.helpers.gpu_work import GPU, gpu_work, gradients

SETTINGS = Training(network={"name": "mlp"}, epochs=1, batch_size=4, optimizer="sgd", momentum=0.9)


def network() -> nn.Module:
    sizes: Any = {"device": GPU}
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8, **sizes), nn.ReLU(), nn.Linear(8, 3, **sizes))


def criterion(outputs: Tensor, labels: Tensor, teacher_logits: Tensor, progress: float) -> Any:
    return kd(outputs, teacher_logits, labels)


def started_by_a_step(patch: pytest.MonkeyPatch, count: int, recorded: bool) -> dict[str, int]:
    """The kernels of a step of so many networks in one loop, but those of the backward pass, when the optimizer
    has its state already.
    """
    with gpu_work(patch) as (_, work):
        several = SeveralNetworks([network() for _ in range(count)], GPU)
        stepper = _SeveralSteps(several, make_optimizer(several, SETTINGS, GPU), SETTINGS)
        loss = partial(_each_loss, criterion, several.branches)
        step = Step(several, loss, stepper, SETTINGS, recorded, lambda done: (done(), lambda: None))
        patch.setattr(Tensor, "backward", lambda loss: gradients(several))
        sizes = {"device": GPU}
        labels = torch.zeros(4 * count, dtype=torch.int64, device=GPU)
        batch = torch.zeros(4 * count, 3, 2, 2, **sizes), labels, torch.zeros(4 * count, 3, **sizes)
        for number in range(5):
            work.launches.clear()
            step(batch, 0.0, number=number)
        assert not work.waits
    return dict(work.launches)


def test_ten_networks_in_one_loop_start_one_step_of_the_optimizer_and_no_more_than_ten_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, ten = (started_by_a_step(monkeypatch, count, recorded=False) for count in (1, 10))
    assert ten["_fused_sgd_"] == one["_fused_sgd_"] == 1
    assert sum(ten.values()) <= 10 * sum(one.values())


def test_a_recorded_step_of_ten_networks_starts_as_much_beside_its_replay_as_that_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images are laid out anew, the batch is copied to its place, the terms from theirs, and the optimizer makes its
    step.
    """
    one, ten = (started_by_a_step(monkeypatch, count, recorded=True) for count in (1, 10))
    assert one == ten == {"clone": 1 + 3, "copy_": 3, "_fused_sgd_": 1}


def test_a_network_is_measured_without_a_wait_for_the_batch_that_was_just_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Data:
        class data:
            lazy = False

        def __len__(self) -> int:
            return 10

        def batch(self, keys: Any) -> tuple[Tensor, Tensor]:
            return torch.from_numpy(np.zeros((len(keys), 12), "f4")), torch.zeros(len(keys))

    data: Any = Data()
    monkeypatch.setattr(evaluation, "held_views", lambda data, device: data)
    with gpu_work(monkeypatch) as (calls, work):
        assert predict(network(), data, GPU, batch_size=2).shape == (10, 3)
    usual = "the usual stream of cuda:0"
    event, wait = f"event in {usual}", f"the host waits for an event in {usual}"
    assert calls.log == [event] * 3 + [wait, event] * 2 + [wait] * 3
    assert not work.waits
    assert work.copies == 5
