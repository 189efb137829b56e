"""Merged caches hold the means, or the views, of those that they are made of, and only of ones that belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCache, MismatchError, Store
from decant.cache.convert import import_logits
from decant.cache.merge import merge
from decant.cache.statistics import softmax
from tests.helpers.caches import build, manifest

TABLES = np.random.default_rng(0).normal(size=(3, 2, 40, 5)).astype(np.float32)
LABELS = np.arange(40) % 5
DATA = {"name": "some"}


def caches(store: Store, count: int = 3) -> list[LogitCache]:
    """Caches of one set of data by several teachers, float32."""
    return [
        LogitCache.open(
            import_logits(
                store, table, LABELS, teacher={"network": f"net{place}"}, data=DATA, dtype="float32"
            )
        )
        for place, table in enumerate(TABLES[:count])
    ]


def test_the_mean_of_logits_is_that(tmp_path: Path) -> None:
    store = Store(tmp_path)
    merged = LogitCache.open(merge(store, caches(store), "mean-logits"))
    for view in range(2):
        np.testing.assert_allclose(
            merged.logits(slice(None), view), TABLES[:, view].mean(0), rtol=1e-5, atol=1e-6
        )
    assert np.array_equal(merged.labels, LABELS)
    assert merged.verify() == []


def test_the_mean_of_probabilities_is_what_a_softmax_of_the_merged_gives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    merged = LogitCache.open(merge(store, caches(store), "mean-probabilities"))
    expected = softmax(TABLES[:, 1].astype(np.float64)).mean(0)
    np.testing.assert_allclose(softmax(merged.logits(slice(None), 1)), expected, rtol=1e-5)


def test_stacked_views_come_one_after_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = LogitCache.open(build(tmp_path / "one.h5", manifest(num_views=2, views={"seed": 0})))
    second = LogitCache.open(build(tmp_path / "two.h5", manifest(num_views=1, views={"seed": 1})))
    stacked = LogitCache.open(merge(store, [first, second], "stack-views"))
    assert stacked.num_views == 3
    for view, (source, inner) in enumerate([(first, 0), (first, 1), (second, 0)]):
        assert np.array_equal(stacked.logits(slice(None), view), source.logits(slice(None), inner))
        assert np.array_equal(stacked.input_crc32[view], source.input_crc32[inner])


def test_views_of_different_teachers_are_not_stacked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(MismatchError, match=r"teacher\.network"):
        merge(store, caches(store, 2), "stack-views")


def test_a_second_merge_finds_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert merge(store, caches(store), "mean-logits") == merge(store, caches(store), "mean-logits")
    assert len(store.paths()) == 4


def test_caches_of_different_data_are_not_merged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (mine,) = caches(store, 1)
    other = LogitCache.open(
        import_logits(store, TABLES[0], LABELS, teacher={"network": "x"}, data={"name": "other"})
    )
    with pytest.raises(MismatchError, match=r"data\.name: expected 'some', found 'other'"):
        merge(store, [mine, other], "mean-logits")
    with pytest.raises(MismatchError, match="two caches or more"):
        merge(store, [mine], "mean-logits")
    relabelled = LogitCache.open(
        import_logits(store, TABLES[1], LABELS[::-1].copy(), teacher={"network": "x"}, data=DATA)
    )
    with pytest.raises(MismatchError, match="labels"):
        merge(store, [mine, relabelled], "mean-logits")
