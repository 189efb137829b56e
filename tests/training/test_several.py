"""Networks in one loop end with the very weights that each has alone, whatever happens to one of them or to all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.errors import DivergedError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.objectives import Terms, cross_entropy
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.training import checkpoint
from decant.pipeline.training.epoch_log import CHECKPOINT, Epoch, read_epochs
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.loop import train
from decant.pipeline.training.partial_epoch import PartialEpoch, RunningLoss
from decant.pipeline.training.several import train_together
from tests.helpers.small import CPU, recipe
from tests.training.test_recorded import OnTheProcessor

SEEDS = 3
ALL_OF_IT: dict[str, Any] = {"optimizer": "adamw", "lr": 0.01, "clip_norm": 0.5, "average": "ema"}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits.load(recipe("views.count=3", 'views.augment=[{op="flip"}]').settings)


def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Terms:
    loss = cross_entropy(outputs, labels)
    return Terms(loss, soft=2 * loss)


def settings_of(seed: int, **settings: Any) -> Training:
    usual = {"network": "mlp", "epochs": 3, "batch_size": 400, "lr": 0.05}  # 1,437 samples: 4 batches
    return Training.model_validate({**usual, **settings, "seed": seed})


Evaluate = Callable[[Path, nn.Module], Metrics]


def measured(_: Path, network: nn.Module) -> Metrics:
    """Something of all weights."""
    return Metrics(top1=float(sum(weights.detach().double().sum() for weights in network.parameters())))


def begun(splits: Splits, chosen: Training) -> nn.Module:
    return build_network(specify_network(chosen.network, splits.student_train), chosen.seed)


def alone(
    splits: Splits, folder: Path, evaluate: Evaluate = measured, on: Any = "test", **settings: Any
) -> list[nn.Module]:
    """The networks of all seeds, one after the other."""
    networks = list[nn.Module]()
    for seed in range(SEEDS):
        chosen, path = settings_of(seed, **settings), folder / str(seed)
        networks.append(begun(splits, chosen))
        train(
            networks[-1], splits.student_train, criterion, chosen, path, device=CPU, measured_on=on,
            views=splits.student_train.cached_views, evaluate_on=partial(evaluate, path),
        )  # fmt: skip
    return networks


def together(
    splits: Splits, folder: Path, evaluate: Evaluate = measured, on: Any = "test", **settings: Any
) -> tuple[list[nn.Module], list[DivergedError]]:
    """The same in one loop, and what went wrong with some."""
    recorder = settings.pop("recorder", None)
    learners = [
        Learner(
            begun(splits, chosen), chosen, path, device=CPU, measured_on=on, evaluate_on=partial(evaluate, path)
        )
        for seed in range(SEEDS)
        for chosen, path in [(settings_of(seed, **settings), folder / str(seed))]
    ]  # fmt: skip
    diverged = train_together(
        learners, splits.student_train, criterion, device=CPU, recorder=recorder,
        views=splits.student_train.cached_views,
    )  # fmt: skip
    for learner in learners:
        learner.finish()
    return [learner.network for learner in learners], list(diverged.values())


def same(some: Sequence[nn.Module], others: Sequence[nn.Module]) -> bool:
    return all(
        torch.equal(tensor, other.state_dict()[name])
        for one, other in zip(some, others, strict=True)
        for name, tensor in one.state_dict().items()
    )


def lines(folder: Path) -> list[list[Epoch]]:
    """The logs of all seeds, without what is no other network's: how long it took, and in which company."""
    apart = ("seconds", "together")
    return [
        [{name: value for name, value in line.items() if name not in apart} for line in read_epochs(path)]
        for path in sorted(folder.iterdir())
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"nesterov": True, "warmup_epochs": 1},
        {**ALL_OF_IT, "network": "conv", "accumulate": 3},
        {"network": "conv", "freeze": ["0", "1"], "average": "swa", "evaluate_every": 2},
    ],
    ids=str,
)
def test_each_has_the_very_weights_and_metrics_that_it_has_alone(
    splits: Splits, tmp_path: Path, settings: dict[str, Any]
) -> None:
    one_by_one = alone(splits, tmp_path / "alone", **settings)
    at_once, diverged = together(splits, tmp_path / "together", **settings)
    assert same(one_by_one, at_once)
    assert not diverged
    assert lines(tmp_path / "alone") == lines(tmp_path / "together")
    assert [line["together"] for line in read_epochs(tmp_path / "together" / "0")] == [SEEDS] * 3


def test_checkpoints_after_an_epoch_are_written_at_the_same_time(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the disk, and none for another."""
    everybody, begun_ones = threading.Barrier(SEEDS), list[str]()

    def write(path: Path, content: memoryview) -> None:
        begun_ones.append(path.parent.name)
        everybody.wait(timeout=30)
        write_atomically(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", write)
    together(splits, tmp_path, epochs=1)
    assert sorted(begun_ones) == ["0", "1", "2"]
    assert all((tmp_path / name / CHECKPOINT).is_file() for name in begun_ones)


def test_a_step_of_all_is_recorded_once_and_replayed(splits: Splits, tmp_path: Path) -> None:
    recorder, settings = OnTheProcessor(), {"batch_size": 100, "epochs": 1, "clip_norm": 1.0}
    at_once, _ = together(splits, tmp_path / "together", recorder=recorder, **settings)
    assert recorder.recordings == 1
    assert same(alone(splits, tmp_path / "alone", **settings), at_once)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_stop_between_the_checkpoints_of_two_networks_changes_nothing(
    splits: Splits, tmp_path: Path, epoch: int
) -> None:
    """The first is an epoch further then: the others catch up, and all go on in one loop."""
    folder = tmp_path / "together"

    def stopped(path: Path, network: nn.Module) -> Metrics:
        if path.name == "1" and len(read_epochs(path)) == epoch - 1:
            raise Stopped
        return measured(path, network)

    with pytest.raises(Stopped):
        together(splits, folder, stopped, **ALL_OF_IT)
    assert [len(read_epochs(folder / str(seed))) for seed in range(SEEDS)] == [epoch, epoch - 1, epoch - 1]
    at_once, _ = together(splits, folder, **ALL_OF_IT)
    assert same(alone(splits, tmp_path / "alone", **ALL_OF_IT), at_once)
    assert lines(tmp_path / "alone") == lines(folder)
    in_company = [[line["together"] for line in read_epochs(folder / str(seed))] for seed in (0, 1)]
    assert in_company[0][epoch - 1 :] == [3] * (4 - epoch)
    assert in_company[1][epoch - 1 :] == [2] + [3] * (3 - epoch)


def test_a_checkpoint_within_an_epoch_is_gone_on_from_together_and_alone(
    splits: Splits, tmp_path: Path
) -> None:
    settings = {**ALL_OF_IT, "checkpoint_steps": 3}  # after 3 of 4 batches

    def stopped(path: Path, network: nn.Module) -> Metrics:
        raise Stopped

    for name in ("alone", "together"):
        with pytest.raises(Stopped):
            together(splits, tmp_path / name, stopped, **settings)
    whole = alone(splits, tmp_path / "whole", **ALL_OF_IT)
    assert same(whole, alone(splits, tmp_path / "alone", **settings))
    assert same(whole, together(splits, tmp_path / "together", **settings)[0])
    assert lines(tmp_path / "whole") == lines(tmp_path / "alone") == lines(tmp_path / "together")


def test_a_stop_between_the_checkpoints_of_two_networks_within_an_epoch_changes_nothing(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is a batch further then; they meet where the epoch ends."""
    settings, keep_part = {**ALL_OF_IT, "checkpoint_steps": 1}, Learner.keep_part

    def stopped(learner: Learner, part: PartialEpoch) -> None:
        if learner.folder.name == "1" and part.batches == 2:
            raise Stopped
        keep_part(learner, part)

    with monkeypatch.context() as stopping:
        stopping.setattr(Learner, "keep_part", stopped)
        with pytest.raises(Stopped):
            together(splits, tmp_path / "together", **settings)
    at_once, _ = together(splits, tmp_path / "together", **settings)
    assert same(alone(splits, tmp_path / "alone", **ALL_OF_IT), at_once)
    assert lines(tmp_path / "alone") == lines(tmp_path / "together")
    logs = [read_epochs(tmp_path / "together" / str(seed)) for seed in range(SEEDS)]
    assert [[line["together"] for line in log] for log in logs] == [[1, 3, 3], [2, 3, 3], [2, 3, 3]]


def test_a_network_that_diverges_ends_and_the_others_go_on(splits: Splits, tmp_path: Path) -> None:
    def diverging(path: Path, network: nn.Module) -> Metrics:
        found = measured(path, network)
        return Metrics(top1=float("nan")) if path.name == "1" and len(read_epochs(path)) == 1 else found

    at_once, (error,) = together(splits, tmp_path / "together", diverging)
    assert str(error).startswith(
        f"{tmp_path / 'together' / '1'}: epoch 2: top1 is nan, the training has diverged"
    )
    one_by_one = alone(splits, tmp_path / "alone")
    assert same(one_by_one[::2], at_once[::2])
    assert [len(log) for log in lines(tmp_path / "together")] == [3, 1, 3]


def test_each_ends_by_its_own_patience_and_keeps_its_own_best(splits: Splits, tmp_path: Path) -> None:
    def best(path: Path, network: nn.Module) -> Metrics:
        """The best epoch is the first, the second or the third, as the seed is."""
        epoch = len(read_epochs(path)) + 1
        return Metrics(top1=1.0 - 0.1 * abs(epoch - 1 - int(path.name)))

    settings = {"patience": 1, "keep": "best", "epochs": 4, "checkpoint_steps": 1}
    at_once, _ = together(splits, tmp_path / "together", best, "validation", **settings)
    assert [len(log) for log in lines(tmp_path / "together")] == [2, 3, 4]
    assert same(alone(splits, tmp_path / "alone", best, "validation", **settings), at_once)
    assert lines(tmp_path / "alone") == lines(tmp_path / "together")


def test_the_parts_of_an_epoch_are_joined_and_divided_network_by_network() -> None:
    """A part that was divided stays what it is while the loop goes on."""
    parts = list[PartialEpoch]()
    for place in range(2):
        parts.append(PartialEpoch(RunningLoss(1, None), seconds=1.0 + place))
        parts[-1].add({"loss": torch.tensor(2.0 + place)}, 4)
    joined = PartialEpoch.joined(parts)
    joined.add({"loss": torch.tensor([2.0, 3.0])}, 4)
    divided = joined.divided(2)
    joined.add({"loss": torch.ones(2)}, 4)
    assert [(part.means["loss"], part.batches, part.count, part.seconds) for part in divided] == [
        (2.0, 2, 8, 1.5),
        (3.0, 2, 8, 1.5),
    ]
    assert [part.means["loss"] for part in joined.divided(2)] == [(16 + 4) / 12, (24 + 4) / 12]
