"""Batches: who is in them, in which order, through which view, in this process and in workers."""

from __future__ import annotations

import os
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import default_convert

from decant.cache import LogitCache, LogitCacheWriter, Manifest, MismatchError, SoftLabelDataset
from decant.pipeline.errors import DataError
from decant.pipeline.training import batch_runs
from decant.pipeline.training.loading import (
    Keys,
    MissingKeys,
    OrderedKeys,
    ShuffledKeys,
    default_workers,
    loader,
)
from decant.pipeline.training.sending import pack


class Echo:
    """A dataset whose batches are the keys themselves."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def batch(self, keys: Any, /) -> tuple[torch.Tensor]:
        return (torch.from_numpy(np.array(keys)),)


def epoch_of(keys: ShuffledKeys, epoch: int) -> list[Keys]:
    keys.epoch = epoch
    return list(keys)


@pytest.mark.parametrize("length", [1, 2, 7, 63, 64, 66, 1000])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 64, 2000])
def test_an_epoch_has_every_sample_once_but_for_a_last_one_alone(length: int, batch_size: int) -> None:
    keys = ShuffledKeys(length, batch_size, seed=5)
    batches = epoch_of(keys, 3)
    counts = Counter(np.concatenate(batches)[:, 0].tolist())
    alone = batch_size > 1 and length > batch_size and length % batch_size == 1
    assert max(counts.values()) == 1
    assert set(counts) <= set(range(length))
    assert len(counts) == length - alone
    assert len(batches) == len(keys)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if length > 1 and batch_size > 1:
        assert min(map(len, batches)) > 1, "batch normalisation cannot take one"


def test_the_sample_that_is_left_out_is_another_every_epoch() -> None:
    keys = ShuffledKeys(65, 64, seed=0)
    missing = [set(range(65)) - set(np.concatenate(epoch_of(keys, e))[:, 0].tolist()) for e in range(20)]
    assert all(len(left) == 1 for left in missing)
    assert len(set.union(*missing)) > 10


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> bytes:
        return np.concatenate(epoch_of(ShuffledKeys(500, 64, seed), epoch))[:, 0].tobytes()

    expected = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(expected.values())) == 9, "all differ"
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    for (seed, epoch), before in reversed(expected.items()):
        assert order(seed, epoch) == before
    assert order(2**32 + 5, 10_000) == order(2**32 + 5, 10_000)


def test_the_order_is_the_same_for_every_batch_size() -> None:
    wanted = np.concatenate(epoch_of(ShuffledKeys(500, 500, 7), 2))
    assert np.array_equal(np.concatenate(epoch_of(ShuffledKeys(500, 64, 7), 2)), wanted)


def test_the_order_can_never_change_unnoticed() -> None:
    """A run that was killed under one release goes on under the next."""
    assert epoch_of(ShuffledKeys(10, 10, seed=3), 4)[0][:, 0].tolist() == [1, 8, 9, 3, 7, 4, 5, 2, 6, 0]


def own_view(indices: NDArray[np.integer], epoch: int) -> NDArray[np.integer]:
    return 100 * epoch + indices


def test_every_sample_goes_through_the_view_that_it_is_given() -> None:
    keys = ShuffledKeys(10, 4, seed=0, views=own_view)
    for epoch in range(5):
        found = np.concatenate(epoch_of(keys, epoch))
        assert np.array_equal(found[:, 1], 100 * epoch + found[:, 0])
    assert {int(view) for batch in epoch_of(ShuffledKeys(10, 4, seed=0), 3) for view in batch[:, 1]} == {0}


@pytest.mark.parametrize("length", [1, 8, 10, 11])
def test_ordered_keys_are_all_samples_in_order(length: int) -> None:
    keys = OrderedKeys(length, 4, view=2)
    assert np.concatenate(list(keys)).tolist() == [[index, 2] for index in range(length)]
    assert len(keys) == len(list(keys)) == -(-length // 4)


def test_batches_that_lack_a_row_are_those_of_the_whole_view_after_view() -> None:
    written = np.ones((3, 11), bool)
    written[0, 10] = written[2, 0] = written[2, 5] = False
    keys = MissingKeys(written, 4)
    expected = [
        list(OrderedKeys(11, 4))[2],
        next(iter(OrderedKeys(11, 4, view=2))),
        list(OrderedKeys(11, 4, view=2))[1],
    ]
    assert [batch.tolist() for batch in keys] == [batch.tolist() for batch in expected]
    assert len(keys) == 3
    assert list(MissingKeys(np.ones((2, 11), bool), 4)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_batches_of_its_keys_epoch_after_epoch(workers: int) -> None:
    keys = ShuffledKeys(100, 16, seed=1, views=own_view)
    batches = loader(Echo(100), keys, workers)
    for epoch in range(3):
        expected = epoch_of(keys, epoch)
        found = [batch.numpy() for (batch,) in batches]
        assert len(found) == len(expected) == len(keys)
        for ours, theirs in zip(found, expected, strict=True):
            assert np.array_equal(ours, theirs), f"epoch {epoch}"


class Several:
    """Batches of large and small tensors, of dtypes that NumPy has and one that it lacks, and a dictionary of some."""

    def __len__(self) -> int:
        return 8

    def batch(self, keys: Any, /) -> tuple[Any, ...]:
        labels = torch.from_numpy(np.array(keys))
        logits = torch.randn(len(keys), 3, generator=torch.Generator().manual_seed(int(keys[0, 0])))
        texts = {"input_ids": labels + 1, "attention_mask": labels > 2, "large": logits.repeat(1, 9000)}
        learnt = torch.ones(2, requires_grad=True)
        return texts, labels, logits, logits.bfloat16(), logits.repeat(1, 9000), labels[:, ::2], learnt


def test_workers_send_few_tensors_in_shared_memory_of_their_own() -> None:
    """Not a bit and no dtype of a batch changes."""
    keys = ShuffledKeys(8, 4, seed=0)
    expected = list(loader(Several(), keys, 0))
    for found, here in zip(loader(Several(), keys, 2), expected, strict=True):
        parts = zip([*found[0].values(), *found[1:]], [*here[0].values(), *here[1:]], strict=True)
        for one, other in parts:
            assert (one.dtype, one.requires_grad) == (other.dtype, other.requires_grad)
            assert torch.equal(one, other)
        shared = [part.is_shared() for part in (*found[0].values(), *found[1:-1])]
        assert shared == [False, False, False, False, False, True, False, False]


class Named(NamedTuple):
    """Parts of a batch by name."""

    inputs: Any
    labels: Any


def test_what_workers_send_is_what_a_dataloader_makes_of_a_batch() -> None:
    """Of arrays and numbers of NumPy too; each tensor has memory of its own, which may be written to."""
    array = np.arange(6, dtype=np.float64).reshape(2, 3)
    batch = (
        array,
        array.T,
        np.int64(4),
        [1, 2],
        {"a": array, "b": ["text"]},
        Named(array, np.zeros((0, 2), bool)),
        "c",
    )
    sent = ForkingPickler.dumps(pack([batch]))
    for given in (batch, list(batch), batch[4], batch[5], array, torch.from_numpy(array), torch.zeros(0, 2)):
        (found,) = ForkingPickler.loads(ForkingPickler.dumps(pack([given])))
        assert_same(found, default_convert(given))
    ((first, second, *_),) = ForkingPickler.loads(sent)
    first += 1
    assert torch.equal(first, second.T + 1)


def assert_same(found: Any, expected: Any) -> None:
    """The same tensors in the same places, where a tuple has become a list."""
    if isinstance(expected, tuple | list):
        assert type(found) is list
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    else:
        assert (type(found), found) == (type(expected), expected)


def test_an_array_in_memory_takes_no_workers() -> None:
    assert default_workers(lazy=False) == 0
    assert default_workers(lazy=True) >= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_nothing_from_the_generators_of_the_process(workers: int) -> None:
    """So that a batch may be made beside a network that draws its dropout."""
    before = torch.get_rng_state()
    list(loader(Echo(20), OrderedKeys(20, 8), workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_workers_are_counted_by_the_cores_that_one_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert default_workers(lazy=True) == 1
    finally:
        os.sched_setaffinity(0, allowed)


class Counting(Echo):
    """Counts calls, and makes several batches in one where it can."""

    def __init__(self, length: int, together: bool) -> None:
        super().__init__(length)
        self.calls = list[int]()
        if together:
            self.batches = self._batches

    def batch(self, keys: Any, /) -> tuple[torch.Tensor]:
        self.calls.append(1)
        return super().batch(keys)

    def _batches(self, keys: Any, /) -> list[tuple[torch.Tensor]]:
        self.calls.append(len(keys))
        return [Echo.batch(self, each) for each in keys]


def test_small_batches_are_made_several_in_a_call_and_large_ones_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = ShuffledKeys(500, 64, seed=1)
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 3 * 64 * 16)
    alone, together = Counting(500, False), Counting(500, True)
    for epoch in range(2):
        keys.epoch, keys.first = epoch, 2 * epoch
        expected, found = list(loader(alone, keys)), list(loader(together, keys))
        assert [batch[0].tolist() for batch in found] == [batch[0].tolist() for batch in expected]
    assert together.calls == [1, 3, 3, 1, 1, 3, 2]
    again = loader(together, keys)
    assert [len(list(again)) for _ in range(2)] == [6, 6]
    assert together.calls[7:] == [1, 3, 2, 3, 3]  # in the second epoch it is known how many
    together.calls.clear()
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 2 * 64 * 16 - 1)
    assert len(list(loader(together, keys))) == 6
    assert together.calls == [1] * 6


def test_a_small_last_batch_that_is_made_first_leads_to_no_larger_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As after a kill before the last batch of an epoch, whose size is another."""
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 3 * 64 * 16)
    keys, data = ShuffledKeys(450, 64, seed=1), Counting(450, True)
    again, keys.first = loader(data, keys), 7
    assert [len(batch[0]) for batch in again] == [2]
    keys.first = 0
    assert len(list(again)) == 8
    assert data.calls == [1, 3, 3, 2]


def test_small_batches_are_made_together_with_those_of_the_next_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are the same, also where a run begins within an epoch, and where an epoch is left and begun again."""
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 5 * 64 * 16)
    keys, alone, together = ShuffledKeys(192, 64, seed=1), Counting(192, False), Counting(192, True)
    batches = loader(together, keys)

    def expected(epoch: int, first: int = 0) -> list[Any]:
        keys.epoch, keys.first, keys.epochs = epoch, first, None
        made = [batch[0].tolist() for batch in loader(alone, keys)]
        keys.epochs = 5
        return made

    def found() -> list[Any]:
        return [batch[0].tolist() for batch in batches]

    for epoch, first in [(0, 1), (1, 0), (2, 0)]:
        assert expected(epoch, first) == found()
    assert together.calls == [1, 5, 5]  # the third call makes what is left of epoch 2, and of 3 and 4
    wanted = expected(3)
    assert next(iter(batches))[0].tolist() == wanted[0], "and then this epoch is left"
    assert wanted == found()
    assert expected(4) == found()
    assert together.calls == [1, 5, 5, 5, 1], "nothing is made of an epoch that is none"
    assert expected(1) == found()
    assert expected(3) == found(), "and not the batches of epoch 2, which were made ahead"


class Unreadable(Echo):
    def batch(self, keys: Any) -> tuple[Any, ...]:
        raise DataError("a.jpg: not a readable image")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_is_worded_alike_from_a_worker(workers: int) -> None:
    with pytest.raises(DataError) as raised:
        list(loader(Unreadable(100), OrderedKeys(100, 16), workers))
    assert str(raised.value) == "a.jpg: not a readable image"


class Pictures(Echo):
    """Inputs (B, 3, 16, 16) that say which sample and view they are; of the samples from `wrong` on other labels."""

    wrong = 1_000

    def __getitem__(self, key: Any) -> tuple[Any, ...]:
        raise NotImplementedError

    def batch(self, keys: Any, /) -> tuple[Any, ...]:
        pairs = torch.from_numpy(np.array(keys))
        inputs = (pairs[:, :1] + 100 * pairs[:, 1:]).to(torch.uint8).repeat(1, 768).reshape(-1, 3, 16, 16)
        return inputs, (pairs[:, 0] + (pairs[:, 0] >= self.wrong)) % 5


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> SoftLabelDataset:
    path, data = tmp_path_factory.mktemp("loading") / "cache.h5", Pictures(100)
    with LogitCacheWriter(path, Manifest.build(num_samples=100, num_outputs=5, num_views=2)) as writer:
        for view in range(2):
            keys = np.stack([np.arange(100), np.full(100, view)], axis=1)
            inputs, labels = data.batch(keys)
            logits = 4 * np.eye(5)[labels.numpy()] + np.sin(keys @ [[1], [1_000]])
            writer.write(keys[:, 0], logits, labels=labels.numpy(), inputs=inputs, view=view)
        writer.publish()
    return SoftLabelDataset(data, LogitCache.open(path))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_with_logits_are_those_of_the_dataset_also_from_workers(
    labelled: SoftLabelDataset, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Epoch after epoch, also when one was left before its end, and when one begins in its middle."""
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 1)  # so that each batch is a large one
    keys = ShuffledKeys(100, 8, seed=2, views=lambda indices, epoch: (indices + epoch) % 2)
    batches = loader(labelled, keys, workers)
    next(iter(batches))
    for keys.epoch, keys.first in ((0, 0), (1, 3)):
        for found, each in zip(batches, list(keys), strict=True):
            for one, other in zip(found, labelled.batch(each), strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
    moved = Pictures(100)
    moved.wrong = 43
    batches = iter(loader(SoftLabelDataset(moved, labelled.cache), OrderedKeys(100, 8), workers))
    for _ in range(5):
        next(batches)
    with pytest.raises(MismatchError, match="sample 43: its label is 4, and was 3"):
        next(batches)
