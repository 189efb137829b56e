"""Batches by a budget of tokens: whole epochs, one number of batches, an order that is a function of seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.pipeline.training.group import Group
from decant.pipeline.training.token_keys import TokenKeys

LENGTHS = np.clip(np.random.default_rng(0).lognormal(4, 1, 3000).astype(int), 2, 512)


def epoch_of(keys: TokenKeys, epoch: int) -> list[NDArray[np.int64]]:
    keys.epoch = epoch
    return list(keys)


def keys_of(seed: int = 3, tokens: int = 4096, group: Group | None = None) -> TokenKeys:
    more = {} if group is None else {"group": group}
    return TokenKeys(LENGTHS, LENGTHS - 1, tokens, seed, **more)


@pytest.mark.parametrize("tokens", [1, 700, 4096, 10**9])
def test_every_sample_is_there_once_and_no_batch_has_more_tokens_than_it_may(tokens: int) -> None:
    keys = keys_of(tokens=tokens)
    sizes = []
    for epoch in (0, 7):
        batches = epoch_of(keys, epoch)
        assert len(batches) == len(keys)
        assert np.array_equal(np.sort(np.concatenate(batches)[:, 0]), np.arange(len(LENGTHS)))
        for number, batch in enumerate(batches):
            rows = LENGTHS[batch[:, 0]]
            assert len(rows) == 1 or len(rows) * rows.max() <= tokens
            assert keys.size_of(number) == (rows - 1).sum()
        sizes.append(sorted(map(len, batches)))
    assert sizes[0] == sizes[1]


def test_little_of_a_batch_is_padding() -> None:
    batches = epoch_of(keys_of(), 0)
    padded = sum(len(batch) * LENGTHS[batch[:, 0]].max() for batch in batches)
    assert LENGTHS.sum() > 0.9 * padded
    assert len(batches) < 1.15 * LENGTHS.sum() / 4096


def test_the_order_is_of_seed_and_epoch_alone_and_another_in_each() -> None:
    again = keys_of()
    first = epoch_of(keys_of(), 2)
    epoch_of(again, 5)
    assert all(map(np.array_equal, first, epoch_of(again, 2)))
    for other in (epoch_of(keys_of(), 3), epoch_of(keys_of(seed=4), 2)):
        assert not np.array_equal(np.concatenate(first), np.concatenate(other))
    sets = [{frozenset(batch[:, 0].tolist()) for batch in epoch_of(keys_of(), epoch)} for epoch in (0, 1)]
    assert len(sets[0] & sets[1]) < 0.1 * len(sets[0]), "the same samples are always together"


def test_an_epoch_that_goes_on_has_the_batches_that_are_left() -> None:
    keys = keys_of()
    whole = epoch_of(keys, 1)
    keys.first = 5
    assert all(map(np.array_equal, whole[5:], epoch_of(keys, 1)))


def test_ranks_divide_each_batch() -> None:
    whole = epoch_of(keys_of(), 1)
    parts = [epoch_of(keys_of(group=Group(rank, 3)), 1) for rank in range(3)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert np.array_equal(batch, np.concatenate(shares)) or len(batch) < 3


def test_samples_of_one_length_are_drawn_from_all_of_them() -> None:
    keys = TokenKeys(np.full(64, 128), np.full(64, 127), tokens_per_batch=8 * 128, seed=0)
    batches = list(keys)
    assert [len(batch) for batch in batches] == [8] * 8
    assert sum(np.ptp(batch[:, 0]) > 32 for batch in batches) >= 7
