"""What worker processes send: several batches in a message, in memory that is used again when nobody holds them."""

from __future__ import annotations

import gc
import os
import pickle
from collections import deque
from collections.abc import Callable
from itertools import islice
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from decant.pipeline.errors import DataError
from decant.pipeline.training import lent_memory, worker_batches
from decant.pipeline.training.handout import MissingOfRuns
from decant.pipeline.training.handout import Run as Handed
from decant.pipeline.training.lent_memory import LentMemory
from decant.pipeline.training.loading import OrderedKeys, ShuffledKeys, _maker, loader
from decant.pipeline.training.sending import pack

N, BATCH = 500, 16


class Images:
    """Batches of 192 KiB that differ in every byte of every sample and view, with labels; from `wrong` on it fails."""

    def __init__(self, wrong: int = N, error: Exception | None = None) -> None:
        self.wrong, self.error = wrong, error

    def __len__(self) -> int:
        return N

    def batch(self, keys: Any, /) -> tuple[Any, ...]:
        if self.error is not None and int(np.max(keys[:, 0])) >= self.wrong:
            raise self.error
        bits = np.random.Generator(np.random.Philox(key=[int(keys[0, 0]), len(keys)]))
        inputs = torch.from_numpy(bits.integers(0, 256, (len(keys), 3, 64, 64), dtype=np.uint8))
        return inputs, torch.from_numpy(keys[:, 0].copy()), {"mask": inputs[:, :1] > 7}


@pytest.fixture(scope="module")
def batches() -> Any:
    """One loader for all of a module, as its workers live on from epoch to epoch."""
    return loader(Images(), ShuffledKeys(N, BATCH, seed=2), 2)


def flat(batch: Any) -> list[torch.Tensor]:
    return [batch[0], batch[1], batch[2]["mask"]]


def epoch_of(batches: Any, epoch: int) -> list[Any]:
    """The batches of an epoch, made here."""
    keys = ShuffledKeys(N, BATCH, seed=2)
    batches.runs.keys.epoch = keys.epoch = epoch
    return [Images().batch(each) for each in keys]


def lent(batches: Any) -> list[int]:
    """Of each piece of memory of a worker, whether it is lent."""
    gc.collect()
    return [int(piece._memory[0]) for piece in batches.dataset.memory._received.values()]


def test_batches_of_workers_are_those_made_here_and_their_memory_is_used_again(batches: Any) -> None:
    addresses = set[int]()
    for epoch in range(3):
        for found, here in zip(batches, epoch_of(batches, epoch), strict=True):
            for one, other in zip(flat(found), flat(here), strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
            addresses.add(found[0].data_ptr())
    assert len(addresses) < 40, "of 96 batches"
    assert len(lent(batches)) <= 2 * lent_memory._MOST


KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "the tensor": lambda tensor: tensor,
    "a part of it": lambda tensor: tensor[1:],
    "an array of it": lambda tensor: tensor.numpy(),
    "a part of an array of it": lambda tensor: tensor.numpy()[::2],
    "detached, in other places": lambda tensor: tensor.detach().transpose(0, 1),
}


@pytest.mark.parametrize("how", KEPT)
def test_what_is_kept_of_a_batch_is_never_written_over(batches: Any, how: str) -> None:
    """Be it every batch of an epoch, more than a worker has memory for, or one in five."""
    for epoch, every in ((0, 1), (1, 5)):
        kept, expected = [], []
        for number, (found, here) in enumerate(zip(batches, epoch_of(batches, epoch), strict=True)):
            if number % every == 0:
                kept.append(KEPT[how](found[0]))
                expected.append(KEPT[how](here[0]))
        deque(batches, maxlen=0)
        for one, other in zip(kept, expected, strict=True):
            assert np.array_equal(one, other)
    del kept, one, found
    assert not any(lent(batches)), "it is given back when the last is dropped"


def test_a_batch_may_be_written_to(batches: Any) -> None:
    kept = []
    for found, here in zip(batches, epoch_of(batches, 1), strict=True):
        found[0] += 1
        kept.append((found[0][:2], here[0][:2] + 1))
    assert all(torch.equal(*pair) for pair in kept)


def test_an_epoch_that_is_left_gives_its_memory_back(batches: Any) -> None:
    for _ in range(3):
        deque(islice(batches, 4), maxlen=0)
    found = list(batches)
    assert len(found) == len(epoch_of(batches, batches.runs.keys.epoch))
    del found
    assert not any(lent(batches))


def test_a_process_that_is_forked_gives_back_nothing_that_this_one_reads() -> None:
    memory = LentMemory()
    piece = memory.lend(5_000)
    assert piece is not None
    remake, arguments = piece.__reduce__()
    read = torch.frombuffer(remake(*arguments).content, dtype=torch.uint8)
    child = os.fork()
    if child == 0:
        del read
        gc.collect()
        own = memory.lend(1)  # a piece of its own
        os._exit(0 if own is not None and own._piece == (os.getpid(), 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert memory.is_lent(0)
    assert len(read) == 5_000
    del read
    assert not memory.is_lent(0)


def test_memory_that_is_too_small_is_replaced_and_no_more_than_a_few_pieces_are_lent() -> None:
    memory, sent = LentMemory(), list[bool]()

    def read(size: int) -> Any:
        piece = memory.lend(size)
        if piece is None:
            return None
        remake, arguments = piece.__reduce__()
        sent.append(arguments[-1] is not None)
        return remake(*arguments).content

    held = [read(100), read(100)]
    assert len(held[0]) == 100
    held[0] = None
    held.append(read(150))  # in place of the first
    assert [len(each) for each in held[1:]] == [100, 150]
    held += [read(50), read(50)]
    assert read(10) is None, "four are read"
    held[1] = None
    assert len(read(90)) == 100
    assert sent == [True] * 5 + [False], "the reader has the memory of a piece that it had before"
    assert len(read(500)) == 500, "in place of the one that is free"


def test_a_quarter_of_the_shared_memory_that_is_free_is_for_all_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = SimpleNamespace(f_bavail=1_000, f_frsize=4_096)
    monkeypatch.setattr("os.statvfs", lambda path: free)
    assert lent_memory.room_for_workers(5) == 1_000 * 4_096 // 20

    def none(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("os.statvfs", none)
    assert lent_memory.room_for_workers(4) == 1 << 28


def test_workers_lend_no_more_than_they_have_room_for() -> None:
    """As in a container with little shared memory: what does not fit is sent as PyTorch sends it."""
    memory = LentMemory(most_bytes=1_000)
    first = memory.lend(400)
    assert first is not None
    assert memory.lend(500) is None, "with both and what each needs beside"
    batch = (torch.arange(1 << 17), torch.arange(3))
    (found,) = ForkingPickler.loads(ForkingPickler.dumps(pack([batch], memory=memory)))
    assert all(torch.equal(*pair) for pair in zip(found, batch, strict=True))
    assert found[0].is_shared()
    batches = loader(Images(), OrderedKeys(N, BATCH), 1)
    batches.dataset.memory.most_bytes = 10_000
    assert torch.equal(torch.cat([found[1] for found in batches]), torch.arange(N))
    assert not batches.dataset.memory._received


def test_a_batch_that_is_larger_than_the_first_of_its_message_is_sent_beside_it() -> None:
    """In memory of its own; each tensor in lent memory begins where any dtype may."""
    memory, count = LentMemory(), 3
    batches = [(torch.zeros(1, size, dtype=torch.uint8), torch.arange(9)) for size in (39_991, 450_000, 7)]
    found = list(ForkingPickler.loads(ForkingPickler.dumps(pack(batches, count, memory))))
    assert memory.is_lent(0), "for all three, and not for the first alone, which is small"
    for one, other in zip(found, batches, strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert [one[0].is_shared() for one in found] == [False, True, False]
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (*found[0], *found[2]))


def test_small_tensors_are_sent_where_others_have_filled_the_shared_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = list[int]()

    def full(size: int) -> None:
        calls.append(size)
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    memory, batch = LentMemory(), (torch.arange(8_000), torch.arange(8_000))  # 62.5 KiB each
    for _ in range(2):
        (found,) = ForkingPickler.loads(ForkingPickler.dumps(pack([batch], memory=memory)))
        assert all(torch.equal(*pair) for pair in zip(found, batch, strict=True))
    assert len(calls) == 1


def test_empty_and_negated_tensors_are_sent_beside_large_ones() -> None:
    """`torch.frombuffer` refuses empty ones, and PyTorch would lose the sign of those that are negated by a mark
    alone.
    """
    memory, complex_one, large = LentMemory(), torch.tensor([1 + 2j]).conj(), torch.arange(1 << 17)
    batch = (
        large,
        torch.zeros(0, 3),
        complex_one,
        complex_one.imag,
        complex_one.imag.repeat(1 << 17),
        large + 1,
    )
    (found,) = ForkingPickler.loads(ForkingPickler.dumps(pack([batch], memory=memory)))
    assert memory.is_lent(0)
    for one, other in zip(found, batch, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert torch.equal(one, other)
    worker_batches.RunsOfKeys([], workers=1).learn([torch.eye(2).to_sparse()])


def test_tensors_that_are_more_than_their_values_are_left_to_pytorch() -> None:
    """And so are large ones in another order, as of channels last."""
    memory, large = LentMemory(), torch.arange(1 << 17)
    last = torch.zeros(1, 4, 200, 200).to(memory_format=torch.channels_last)
    left = torch.eye(2).to_sparse(), torch.eye(2, device="meta"), torch.eye(2, requires_grad=True), last
    found = next(iter(pack([(large, *left)], memory=memory)))[1:]
    assert all(one is other for one, other in zip(found, left, strict=True))
    assert memory.is_lent(0)


def test_small_tensors_are_sent_by_value_whatever_their_order() -> None:
    batch = torch.arange(8_000), torch.arange(8_000.0).view(80, 100).T
    (found,) = ForkingPickler.loads(ForkingPickler.dumps(pack([batch])))
    assert all(torch.equal(*pair) for pair in zip(found, batch, strict=True))
    assert not any(tensor.is_shared() for tensor in found)


@pytest.mark.parametrize("error", [DataError("a.jpg: not readable"), OSError(5, "failed"), KeyError("label")])
def test_an_error_in_a_worker_is_raised_when_its_batch_comes(error: Exception) -> None:
    """Of batches that are sent together, those before it are handed out."""
    images = Images(wrong=20 * BATCH + 3, error=error)
    batches, got = loader(images, OrderedKeys(N, BATCH), 1), []
    batches.runs.learn([torch.zeros(1 << 16)])  # so that there are several from the start
    with pytest.raises(type(error)) as raised:
        deque((got.append(found[1]) for found in batches), maxlen=0)
    batches._iterator._shutdown_workers()  # which takes 5 s where garbage collection does it
    assert torch.equal(torch.cat(got), torch.arange(20 * BATCH))
    assert str(error).strip("'") in str(raised.value)


def test_keys_that_others_may_take_meanwhile_are_drawn_one_by_one() -> None:
    """In a process of several that make one cache it is not known before how many there are."""
    keys = MissingOfRuns([Handed(0, 0, N)], [np.zeros(N, bool)], BATCH)
    batches = loader(Images(), keys, 1)
    found = [(batch[1].tolist(), len(keys.taken)) for batch in batches]
    assert [labels for labels, _ in found] == [batch.keys[:, 0].tolist() for batch in keys.taken]
    assert found[0][1] <= 3, "a worker is asked for two at once"
    batches.runs.learn([torch.zeros(1)])
    assert all(len(run.keys) == 1 and not run.ahead for run in batches.runs)


def test_a_worker_that_is_asked_for_another_run_than_it_was_told_makes_that() -> None:
    """As where a DataLoader should not ask its workers in turn. In turn, it reads for many of them at once."""
    runs = worker_batches.RunsOfKeys(list(OrderedKeys(N, 4)), workers=3)
    runs.learn([torch.zeros(1 << 18)])
    asked = pickle.loads(pickle.dumps(list(runs)))
    assert any(run.ahead for run in asked)
    assert torch.equal(
        torch.cat([torch.from_numpy(key) for run in asked for key in run.keys])[:, 0], torch.arange(N)
    )
    begun = list[int]()

    def maker(data: Any) -> worker_batches.Maker:
        makes = _maker(data)

        def counted(keys: Any) -> Any:
            begun.append(len(keys))
            return makes(keys)

        return counted

    in_turn = range(0, len(asked), 3)
    for chosen in (in_turn, np.random.default_rng(3).permutation(len(asked))):
        worker = worker_batches.Batches(Images(), maker, None)
        begun.clear()
        for number in chosen:
            found, keys = list(worker[asked[number]]), asked[number].keys
            assert [batch[1].tolist() for batch in found] == [each[:, 0].tolist() for each in keys]
        if chosen is in_turn:
            assert len(begun) == -(-len(in_turn) // 12), begun
            assert sum(begun) == sum(len(asked[number].keys) for number in in_turn)
