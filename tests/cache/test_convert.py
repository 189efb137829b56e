"""Logits come in and go out as they are; merged caches hold the means or the views of what they are made from; views
of a cache with the same identity are copied, and only where they are sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import (
    CacheError,
    CorruptError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    Store,
    ValueRefusedError,
)
from decant.cache.convert import merge_caches
from decant.cache.copied_views import copy_view, take_over_views
from decant.cache.exchange.logits import export_logits, import_logits
from decant.cache.statistics.outputs import softmax
from tests.helpers.caches import answers, build, holds_the_answers, manifest, write_missing

LOGITS = np.random.default_rng(0).normal(size=(3, 60, 5)).astype(np.float16)
LABELS = np.arange(60) % 5
STATED = {"teacher": {"network": "mine"}, "data": {"name": "elsewhere"}}


@pytest.mark.parametrize("views", [1, 3])
def test_what_is_imported_is_exported_bit_for_bit(tmp_path: Path, views: int) -> None:
    path = import_logits(Store(tmp_path), LOGITS[:views], LABELS, **STATED)
    cache = LogitCache.open(path)
    assert np.array_equal(cache.labels, LABELS)
    assert export_logits(cache, tmp_path / "all.npy") == (views, 60, 5)
    assert np.load(tmp_path / "all.npy").tobytes() == LOGITS[:views].tobytes()
    assert export_logits(cache, tmp_path / "one.npy", view=views - 1) == (60, 5)
    assert np.load(tmp_path / "one.npy").tobytes() == LOGITS[views - 1].tobytes()


def test_labels_that_are_rows_of_floats_are_the_targets_of_a_regression(tmp_path: Path) -> None:
    targets = np.random.default_rng(1).normal(size=(60, 5))
    cache = LogitCache.open(import_logits(Store(tmp_path), LOGITS[0], targets, **STATED))
    assert cache.manifest.num_targets == 5
    assert np.array_equal(cache.labels, targets.astype(np.float32))


def test_the_same_import_is_found_and_another_table_is_another_cache(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = import_logits(store, LOGITS[0], LABELS, **STATED)
    assert import_logits(store, LOGITS[0], LABELS, **STATED) == first
    assert import_logits(store, LOGITS[1], LABELS, **STATED) != first


def test_values_and_shapes_are_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for logits, labels in [
        (LOGITS[0, 0], None),
        (LOGITS[0].astype(int), None),
        (LOGITS[0], LABELS[:-1]),
        (LOGITS[0], np.zeros((59, 5))),
        (LOGITS[0], np.zeros((60, 5), int)),
        (np.full((4, 2), np.nan), None),
        (np.full((4, 2), 1e6), None),
    ]:
        with pytest.raises(ValueRefusedError):
            import_logits(store, logits, labels, **STATED)
    assert store.paths() == []


def test_a_damaged_cache_is_not_exported_as_if_it_were_sound(tmp_path: Path) -> None:
    path = import_logits(Store(tmp_path), LOGITS[0], LABELS, **STATED)
    content = bytearray(path.read_bytes())
    content[LogitCache.open(path).manifest.num_samples + 40_000] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CacheError):
        export_logits(LogitCache.open(path), tmp_path / "out.npy")


@pytest.mark.parametrize("about", [{"data": {"length": 61}}, {"views": {"count": 2}}])
def test_logits_of_other_sizes_than_their_data_are_refused(about: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="as the data have it, found"):
        import_logits(Store(tmp_path), LOGITS, LABELS, **{**STATED, **about})
    assert not list(tmp_path.glob("*.h5"))


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = import_logits(Store(tmp_path), LOGITS, LABELS, **STATED)
    cache = LogitCache.open(path)
    export_logits(cache, tmp_path / "out.npy")
    before = (tmp_path / "out.npy").read_bytes()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[content.index(LOGITS[2].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError):
        export_logits(LogitCache.open(path), tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_bytes() == before
    assert not list(tmp_path.glob("out.npy.*"))


TABLES = np.random.default_rng(0).normal(size=(3, 2, 40, 5)).astype(np.float32)
TABLE_LABELS = np.arange(40) % 5
TABLE_DATA = {"name": "some"}


def caches(store: Store, count: int = 3) -> list[LogitCache]:
    """Caches of one set of data by several teachers, float32."""
    return [
        LogitCache.open(
            import_logits(
                store,
                table,
                TABLE_LABELS,
                teacher={"network": f"net{place}"},
                data=TABLE_DATA,
                dtype="float32",
            )
        )
        for place, table in enumerate(TABLES[:count])
    ]


def test_the_mean_of_logits_is_that(tmp_path: Path) -> None:
    store = Store(tmp_path)
    merged = LogitCache.open(merge_caches(store, caches(store), "mean-logits"))
    for view in range(2):
        np.testing.assert_allclose(
            merged.logits(slice(None), view), TABLES[:, view].mean(0), rtol=1e-5, atol=1e-6
        )
    assert np.array_equal(merged.labels, TABLE_LABELS)
    assert merged.verify() == []


def test_the_mean_of_probabilities_is_what_a_softmax_of_the_merged_gives(tmp_path: Path) -> None:
    store = Store(tmp_path)
    merged = LogitCache.open(merge_caches(store, caches(store), "mean-probabilities"))
    expected = softmax(TABLES[:, 1].astype(np.float64)).mean(0)
    np.testing.assert_allclose(softmax(merged.logits(slice(None), 1)), expected, rtol=1e-5)


def test_stacked_views_come_one_after_the_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = LogitCache.open(build(tmp_path / "one.h5", manifest(num_views=2, views={"seed": 0})))
    second = LogitCache.open(build(tmp_path / "two.h5", manifest(num_views=1, views={"seed": 1})))
    stacked = LogitCache.open(merge_caches(store, [first, second], "stack-views"))
    assert stacked.num_views == 3
    for view, (source, inner) in enumerate([(first, 0), (first, 1), (second, 0)]):
        assert np.array_equal(stacked.logits(slice(None), view), source.logits(slice(None), inner))
        assert np.array_equal(stacked.input_crc32[view], source.input_crc32[inner])


def test_views_of_different_teachers_are_not_stacked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(MismatchError, match=r"teacher\.network"):
        merge_caches(store, caches(store, 2), "stack-views")


def test_a_second_merge_finds_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert merge_caches(store, caches(store), "mean-logits") == merge_caches(
        store, caches(store), "mean-logits"
    )
    assert len(store.paths()) == 4


def test_caches_of_different_data_are_not_merged(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (mine,) = caches(store, 1)
    other = LogitCache.open(
        import_logits(store, TABLES[0], TABLE_LABELS, teacher={"network": "x"}, data={"name": "other"})
    )
    with pytest.raises(MismatchError, match=r"data\.name: expected 'some', found 'other'"):
        merge_caches(store, [mine, other], "mean-logits")
    with pytest.raises(MismatchError, match="two caches or more"):
        merge_caches(store, [mine], "mean-logits")
    relabelled = LogitCache.open(
        import_logits(store, TABLES[1], TABLE_LABELS[::-1].copy(), teacher={"network": "x"}, data=TABLE_DATA)
    )
    with pytest.raises(MismatchError, match="labels"):
        merge_caches(store, [mine, relabelled], "mean-logits")


def damage(path: Path, view: int) -> None:
    """Flips a bit in the middle of the logits of a view."""
    content = bytearray(path.read_bytes())
    of = LogitCache.open(path, verify="off").manifest
    start = content.find(answers(of, view)["logits"].tobytes())
    assert start > 0
    content[start + 10] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


@pytest.mark.parametrize(("there", "asked"), [(1, 3), (2, 3), (3, 2), (3, 1)])
def test_what_is_there_is_taken_over_and_the_rest_is_left_to_compute(
    tmp_path: Path, there: int, asked: int
) -> None:
    store = Store(tmp_path)
    build(store.path(manifest(num_views=there)), manifest(num_views=there))
    with LogitCacheWriter(store.path(manifest(num_views=asked)), manifest(num_views=asked)) as writer:
        assert take_over_views(writer, store) == min(there, asked)
        assert write_missing(writer) == 50 * max(0, asked - there)
        assert holds_the_answers(LogitCache.open(writer.publish()))


def test_the_cache_with_most_views_is_asked_first_and_none_twice(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for views in (1, 4, 2):
        build(store.path(manifest(num_views=views)), manifest(num_views=views))
    assert store.with_other_views(manifest(num_views=8)) == [
        store.path(manifest(num_views=views)) for views in (4, 2, 1)
    ]
    assert store.with_other_views(manifest(num_views=4)) == [
        store.path(manifest(num_views=views)) for views in (2, 1)
    ]
    with LogitCacheWriter(store.path(manifest(num_views=8)), manifest(num_views=8)) as writer:
        assert take_over_views(writer, store) == 4


@pytest.mark.parametrize(
    "other", [{"dtype": "float32"}, {"data": {"split": "test"}}, {"teacher": {"sha256": "cd" * 32}}]
)
def test_a_cache_of_another_question_gives_nothing(tmp_path: Path, other: dict[str, object]) -> None:
    store = Store(tmp_path)
    build(store.path(manifest(num_views=1, **other)), manifest(num_views=1, **other))  # type: ignore[arg-type]
    (tmp_path / "not-a-cache.h5").write_bytes(b"something else")
    assert store.with_other_views(manifest()) == []


def test_damaged_views_are_not_copied_and_are_computed_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    damage(build(store.path(manifest(num_views=2)), manifest(num_views=2)), view=1)
    with LogitCacheWriter(store.path(manifest(num_views=3)), manifest(num_views=3)) as writer:
        with pytest.raises(CorruptError):
            copy_view(writer, 1, LogitCache.open(store.path(manifest(num_views=2))), 1)
        assert take_over_views(writer, store) == 1
        assert write_missing(writer) > 50
        assert holds_the_answers(LogitCache.open(writer.publish()))


def test_what_a_kill_left_written_is_not_copied_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    build(store.path(manifest(num_views=2)), manifest(num_views=2))
    with LogitCacheWriter(store.path(manifest(num_views=3)), manifest(num_views=3)) as writer:
        assert take_over_views(writer, store) == 2
    with LogitCacheWriter(store.path(manifest(num_views=3)), manifest(num_views=3)) as writer:
        assert take_over_views(writer, store) == 0
        assert write_missing(writer) == 50
