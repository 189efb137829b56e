"""Plain PyTorch and Accelerate: nothing but the library, in one process and in two."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Sampler, WeightedRandomSampler

from decant.cache import MismatchError, SoftLabelDataset
from tests.helpers.extras import needs
from tests.integrations import watched
from tests.integrations.launching import TORCHRUN, launch

TWO_RANKS = "tests.integrations.two_ranks"


def test_distributed_samplers_of_two_processes_take_every_sample_once(tmp_path: Path) -> None:
    watched.training_set(tmp_path)
    launch(*TORCHRUN, "-m", TWO_RANKS, "pytorch", tmp_path, cwd=tmp_path)
    watched.assert_whole_epochs(tmp_path, watched.VIEWS, ranks=2)


@pytest.mark.parametrize(
    "how", [pytest.param(name, marks=needs("accelerate")) for name in ("accelerate", "accelerate_seedable")]
)
def test_two_processes_of_accelerate_take_every_sample_once(how: str, tmp_path: Path) -> None:
    watched.training_set(tmp_path)
    launch(*TORCHRUN, "-m", TWO_RANKS, how, tmp_path, cwd=tmp_path)
    watched.assert_whole_epochs(tmp_path, watched.VIEWS, ranks=2)


@pytest.mark.parametrize("one", [pytest.param(1, marks=needs("accelerate"))])
def test_a_resumed_training_of_accelerate_has_the_views_of_its_epochs(one: int, tmp_path: Path) -> None:
    script = f"from {TWO_RANKS} import *; import sys; accelerate(Path(sys.argv[1]), resumed_at={one})"
    launch(sys.executable, "-c", script, tmp_path, cwd=tmp_path)
    watched.assert_whole_epochs(tmp_path, watched.VIEWS - one, first=one)


class Backwards(Sampler[int]):
    """A sampler of one's own."""

    def __iter__(self) -> Iterator[int]:
        return iter(reversed(range(watched.SAMPLES)))


@pytest.mark.parametrize("kind", ["weighted", "own"])
def test_every_sampler_gets_live_logits_of_the_epochs_views(kind: str, tmp_path: Path) -> None:
    train, student = watched.training_set(tmp_path), watched.Watched(tmp_path)
    weights = torch.rand(watched.SAMPLES).tolist()
    sampler = WeightedRandomSampler(weights, 40) if kind == "weighted" else Backwards()
    for epoch in range(watched.VIEWS):
        train.set_epoch(epoch)
        for images, labels, teacher_logits in DataLoader(train, batch_size=8, sampler=sampler):
            student.objective(student(images), teacher_logits, labels)
    seen = watched.epochs(watched.notes(tmp_path), watched.VIEWS)
    for epoch, rows in enumerate(seen):
        for index in {index for index, _ in rows}:
            drawn = [view for other, view in rows if other == index]
            assert drawn == [(epoch + times) % watched.VIEWS for times in range(len(drawn))]
    if kind == "own":
        assert len({row for rows in seen for row in rows}) == watched.SAMPLES * watched.VIEWS


@pytest.mark.parametrize("what", ["shuffled", "another transform", "grown"])
def test_a_mismatch_stops_the_first_batch(tmp_path: Path, what: str) -> None:
    cache = watched.training_set(tmp_path).cache

    def first_batch() -> object:
        train = SoftLabelDataset(watched.wrong_data()[what], cache)
        train.set_epoch(0)
        return next(iter(DataLoader(train, batch_size=8)))

    with pytest.raises(MismatchError):
        first_batch()
