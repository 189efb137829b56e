"""Epochs that are chosen, and weights that are averaged: what is kept, when it ends, and the same after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.errors import DamagedError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.objectives import cross_entropy
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.training.averaging import Average
from decant.pipeline.training.choosing import Choice
from decant.pipeline.training.epoch_log import CHECKPOINT, read_epochs
from decant.pipeline.training.loop import train
from tests.helpers.small import CPU, recipe


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits.load(recipe().settings)


class Stopped(Exception):
    pass


Weights = dict[str, Tensor]


def run(
    splits: Splits,
    folder: Path,
    figures: Sequence[float],
    stop_after: int | None = None,
    network: str = "conv",
    **settings: Any,
) -> tuple[int, Weights, list[Weights]]:
    """Trains a small network whose validation metric is `figures`, epoch by epoch: the epoch that is kept, its weights,
    and the weights that were measured after each epoch. `stop_after` raises in the middle of the next epoch.
    """
    chosen = Training(network={"name": network}, epochs=len(figures), batch_size=512, lr=0.05, **settings)
    net = build_network(specify_network(chosen.network, splits.student_train), chosen.seed)
    calls, measured = 0, list[Weights]()
    first = len(read_epochs(folder))

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Tensor:
        nonlocal calls
        calls += 1
        if stop_after is not None and calls == 3 * stop_after + 2:  # 1,437 samples are 3 batches
            raise Stopped
        return cross_entropy(outputs, labels)

    def evaluate_on(shown: nn.Module) -> Metrics:
        measured.append(copied(shown.state_dict()))
        return Metrics(top1=figures[first + len(measured) - 1])

    views = splits.student_train.cached_views
    kept = train(
        net,
        splits.student_train,
        criterion,
        chosen,
        folder,
        views=views,
        evaluate_on=evaluate_on,
        measured_on="validation",
        device=CPU,
    )
    return kept, copied(net.state_dict()), measured


def copied(state: Weights) -> Weights:
    return {name: value.clone() for name, value in state.items()}


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


RISES_AND_FALLS = (0.3, 0.7, 0.5, 0.7)


def test_the_last_epoch_is_kept_unless_the_best_is_asked_for(splits: Splits, tmp_path: Path) -> None:
    last, weights, measured = run(splits, tmp_path / "last", RISES_AND_FALLS)
    assert last == 4
    assert same(weights, measured[3])
    best, weights, measured = run(splits, tmp_path / "best", RISES_AND_FALLS, keep="best")
    assert best == 2, "of two that are alike the first"
    assert same(weights, measured[1])
    assert not same(weights, measured[3])


def test_patience_ends_a_training_that_gets_no_better(splits: Splits, tmp_path: Path) -> None:
    kept, weights, measured = run(splits, tmp_path, (0.3, 0.7, 0.5, 0.6, 0.9), patience=2)
    assert (kept, len(measured)) == (4, 4), "without keep = best the last of those that were trained"
    assert same(weights, measured[3])
    assert [set(line) & {"test", "validation"} for line in read_epochs(tmp_path)] == [{"validation"}] * 4


def test_patience_waits_for_an_epoch_that_is_measured() -> None:
    choice = Choice(Training(network={"name": "linear"}, epochs=9, evaluate_every=4, patience=2))
    choice.consider(4, {"top1": 0.5}, nn.Identity())
    assert not any(choice.is_over(epoch) for epoch in (4, 5, 6, 7)), "nothing is known of them"
    assert choice.is_over(8)


def test_the_mean_of_the_last_epochs_is_measured_and_kept(splits: Splits, tmp_path: Path) -> None:
    figures = (0.1, 0.2, 0.3, 0.4)
    _, _, raw = run(splits, tmp_path / "raw", figures)
    _, weights, measured = run(splits, tmp_path / "swa", figures, average="swa", swa_start=0.5)
    assert same(measured[1], raw[1]), "nothing is averaged yet"
    for name, value in weights.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (raw[2][name] + raw[3][name]) / 2)
        else:
            assert torch.equal(value, raw[3][name])
    assert same(measured[3], weights)


def test_an_exponential_mean_follows_its_formula() -> None:
    network = nn.Linear(1, 1, bias=False)
    chosen = Training(network={"name": "linear"}, epochs=1, average="ema", ema_decay=0.5)
    average, expected = Average(network, chosen), 0.0
    for step, value in enumerate((4.0, 8.0, 2.0, 6.0, 1.0)):
        with torch.no_grad():
            network.weight.fill_(value)
        average.after_step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = value if step == 0 else decay * expected + (1 - decay) * value
    assert isinstance(average.network, nn.Linear)
    assert float(average.network.weight) == pytest.approx(expected)
    assert float(network.weight.detach()) == 1.0, "what is trained is left alone"


def test_by_itself_a_mean_decays_by_a_thousandth_or_is_of_the_last_quarter() -> None:
    network = nn.Linear(1, 1, bias=False)
    ema, swa = [
        Average(network, Training(network={"name": "linear"}, epochs=8, average=kind))
        for kind in ("ema", "swa")
    ]
    ema.load({"count": 1_000_000, "weights": {"weight": torch.zeros(1, 1)}})
    nn.init.ones_(network.weight)
    ema.after_step()
    assert float(ema.network.weight) == pytest.approx(0.001)  # type: ignore[arg-type]
    for epoch in range(1, 9):
        swa.after_epoch(epoch)
        assert (swa.network is network) == (epoch < 7), epoch


@pytest.mark.parametrize(
    "settings",
    [
        {"keep": "best"},
        {"patience": 1},
        {"average": "ema", "ema_decay": 0.9},
        {"average": "swa", "swa_start": 0.25},
        {"average": "ema", "keep": "best", "patience": 3, "optimizer": "adamw", "accumulate": 2},
    ],
    ids=str,
)
def test_a_stopped_run_keeps_the_very_weights_of_one_that_was_not(
    splits: Splits, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole, expected, _ = run(splits, tmp_path / "whole", RISES_AND_FALLS, **settings)
    for stop_after in (1, 2, 3):
        folder = tmp_path / f"stopped{stop_after}"
        try:
            kept, weights, _ = run(splits, folder, RISES_AND_FALLS, stop_after, **settings)
        except Stopped:
            kept, weights, _ = run(splits, folder, RISES_AND_FALLS, **settings)
        assert kept == whole
        assert same(weights, expected)
        again, weights, measured = run(splits, folder, RISES_AND_FALLS, **settings)
        assert (again, measured) == (whole, []), "killed before the result was written"
        assert same(weights, expected)


@pytest.mark.parametrize("part", ["choice", "average"])
def test_a_checkpoint_with_other_weights_in_it_is_refused(splits: Splits, tmp_path: Path, part: str) -> None:
    settings: dict[str, Any] = {"keep": "best", "average": "ema"}
    with pytest.raises(Stopped):
        run(splits, tmp_path, RISES_AND_FALLS, 1, **settings)
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    name = next(iter(saved[part]["weights"]))
    del saved[part]["weights"][name]
    torch.save(saved, tmp_path / CHECKPOINT)
    with pytest.raises(DamagedError, match=rf"not a checkpoint of this network \({part}: lacks"):
        run(splits, tmp_path, RISES_AND_FALLS, **settings)
