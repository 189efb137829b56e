"""What a network on its way through a training keeps in its folder, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.errors import ChangedError, DivergedError
from decant.pipeline.training import checkpoint
from decant.pipeline.training import learner as learning
from decant.pipeline.training.epoch_log import CHECKPOINT, read_epochs
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.partial_epoch import PartialEpoch, RunningLoss
from tests.helpers.small import CPU


class Stopped(Exception):
    pass


def learner(folder: Path, check_unchanged: Callable[[], None] = lambda: None) -> Learner:
    settings = Training.model_validate({"network": "linear", "epochs": 9})
    return Learner(
        nn.Linear(2, 2),
        settings,
        folder,
        evaluate_on=lambda network: Metrics(top1=0.5),
        device=CPU,
        check_unchanged=check_unchanged,
    )


def part(epoch: int, loss: float = 1.0) -> PartialEpoch:
    done = PartialEpoch(RunningLoss(epoch, None))
    done.add({"loss": torch.tensor(loss)}, 4)
    return done


def epochs_of(folder: Path) -> int:
    """Those of the checkpoint."""
    return int(torch.load(folder / CHECKPOINT, weights_only=True)["epoch"])


def test_within_an_epoch_too_nothing_is_kept_of_changed_data_or_a_loss_that_is_none(tmp_path: Path) -> None:
    def changed() -> None:
        raise ChangedError("changed")

    with pytest.raises(ChangedError, match="changed"):
        learner(tmp_path, changed).keep_part(part(1))
    with pytest.raises(DivergedError, match="epoch 1: loss is nan"):
        learner(tmp_path).keep_part(part(1, float("nan")))
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_part_of_an_epoch_is_written_at_once_and_an_epoch_that_follows_another_later(
    tmp_path: Path,
) -> None:
    trained = learner(tmp_path)
    with trained:
        trained.end_epoch(part(1))
        trained.keep_part(part(2))
        assert "within" in torch.load(tmp_path / CHECKPOINT, weights_only=True)
        trained.end_epoch(part(2))
        assert (epochs_of(tmp_path), len(read_epochs(tmp_path))) == (1, 2)
    assert epochs_of(tmp_path) == 2


@pytest.mark.parametrize("stopped", [False, True])
def test_freed_memory_is_kept_until_the_training_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    within = list[bool]()

    @contextmanager
    def noted() -> Iterator[None]:
        within.append(True)
        try:
            yield
        finally:
            within.append(False)

    monkeypatch.setattr(learning, "freed_memory_kept", noted)
    trained = learner(tmp_path)  # kept, or the collector of garbage would end what it has begun
    with suppress(Stopped), trained:
        assert within == [True]
        if stopped:
            raise Stopped
    assert within == [True, False]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_full_disk_is_said_in_the_end_but_hides_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    def full(path: Path, content: memoryview) -> None:
        raise OSError("no space left")

    trained = learner(tmp_path)

    def train() -> None:
        with trained:
            trained.end_epoch(part(1))
            trained.end_epoch(part(2))  # whose checkpoint waits
            monkeypatch.setattr(checkpoint, "write_atomically", full)
            if stopped:
                raise Stopped

    with pytest.raises(Stopped if stopped else OSError):
        train()
    assert epochs_of(tmp_path) == 1
