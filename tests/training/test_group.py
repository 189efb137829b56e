"""What the ranks of a job divide, the samples of every batch and of the test part; and what they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decant.pipeline.config.settings import Training
from decant.pipeline.errors import RankError, RecipeError
from decant.pipeline.training.data_parallel import divided
from decant.pipeline.training.group import ALONE, Group, naming_loss
from decant.pipeline.training.loading import OrderedKeys, ShuffledKeys, default_workers


def own_view(indices: Any, epoch: int) -> Any:
    return (indices + epoch) % 3


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize(("length", "batch_size"), [(64, 16), (67, 16), (50, 7)])
def test_ranks_read_the_batches_of_one_process_each_sample_once(
    count: int, length: int, batch_size: int
) -> None:
    def batches(group: Group) -> list[list[list[int]]]:
        keys = ShuffledKeys(length, batch_size, seed=4, views=own_view, group=group)
        keys.epoch = 2
        return [batch.tolist() for batch in keys]

    alone, of_ranks = batches(ALONE), [batches(Group(rank, count)) for rank in range(count)]
    keys = ShuffledKeys(length, batch_size, seed=4)
    for number, (whole, *parts) in enumerate(zip(alone, *of_ranks, strict=True)):
        assert keys.size_of(number) == len(whole)
        if len(whole) < count:  # too few: every rank computes all of them
            assert parts == [whole] * count
        else:
            assert [key for part in parts for key in part] == whole
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("length", [1, 2, 3, 10, 1_025])
def test_every_sample_of_a_measurement_is_of_one_rank(length: int) -> None:
    parts = [list(OrderedKeys(length, 512, group=Group(rank, 3))) for rank in range(3)]
    indices = [np.concatenate(part)[:, 0].tolist() for part in parts]
    expected = list(range(length))
    if length < 3:
        assert indices == [expected] * 3
    else:
        assert [index for part in indices for index in part] == expected
    assert [len(OrderedKeys(length, 512, group=Group(rank, 3))) for rank in range(3)] == [*map(len, parts)]


def settings(**more: Any) -> Training:
    return Training.model_validate({"network": "linear", "epochs": 1, **more})


def test_a_batch_with_fewer_samples_than_ranks_is_refused() -> None:
    assert divided(Group(0, 8), settings(batch_size=8)).divides(8)
    with pytest.raises(
        RecipeError, match=r"batch_size: 7 samples are too few for 8 ranks.*set it to 8 or more"
    ):
        divided(Group(0, 8), settings(batch_size=7))
    assert divided(ALONE, settings(batch_size=1)) is ALONE


def test_statistics_of_each_rank_need_the_ranks_that_the_recipe_names() -> None:
    own = settings(batch_size=16, batch_norm_ranks=4)
    group = divided(Group(1, 4), own)
    assert group.divides(8)
    assert not group.divides(7), "one value has no variance"
    for other in (ALONE, Group(0, 2)):
        with pytest.raises(
            RecipeError, match=r"batch_norm_ranks: 4 ranks .*, and the job has [12]; start it on 4"
        ):
            divided(other, own)
    with pytest.raises(RecipeError, match="set it to 8 or more"):
        divided(Group(0, 4), settings(batch_size=7, batch_norm_ranks=4))


def test_a_rank_that_is_lost_is_named_so_and_other_errors_stay() -> None:
    said = (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"
    )
    with (
        pytest.raises(
            RankError, match=r"another rank is lost \(Connection closed by peer .*run the same command"
        ),
        naming_loss(),
    ):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), naming_loss():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setattr("decant.pipeline.ranks.cores.given_time", lambda: None)
    assert default_workers(lazy=True) == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers(lazy=True) == 3
    assert default_workers(lazy=False) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "40")
    assert default_workers(lazy=True) == 1
