"""Views that a cache of the same question has already are copied, and only where they are sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.cache import CorruptError, LogitCache, LogitCacheWriter, Store
from decant.cache.copying import copy_view, take_over_views
from tests.helpers.caches import answers, build, holds_the_answers, manifest, write_missing


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
