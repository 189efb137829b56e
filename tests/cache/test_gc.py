"""What can go is what nobody uses; nothing else is ever removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from decant.cache import LogitCache, LogitCacheWriter, SoftLabelDataset, Store
from decant.cache.io import partial, usage
from decant.cache.io.partial import MARKS, marks_of
from decant.cache.store import gc
from decant.cache.store.gc import DAY, leftovers, remove_leftover
from tests.helpers.caches import build, manifest, write
from tests.helpers.weak_locks import weaken


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make(store: Store, days_old: float, seed: int = 0) -> Path:
    store.root.mkdir(exist_ok=True)
    path = build(store.path(manifest(data={"name": f"data{seed}"})), manifest(data={"name": f"data{seed}"}))
    age(path, days_old)
    return path


def age(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(path, (then, then))


def test_only_what_was_not_used_for_long_is_listed(store: Store) -> None:
    old, new = make(store, 40), make(store, 2, seed=1)
    used = make(store, 40, seed=2)
    with usage.using(used):
        pass
    assert [found.path for found in leftovers(store, unused_days=30)] == [old]
    assert {found.path for found in leftovers(store, unused_days=1)} == {old, new}


def test_other_files_of_the_store_go_as_caches_do(store: Store) -> None:
    folder = store.root / "packs"
    folder.mkdir(parents=True)
    old, new, unfinished = (folder / name for name in ("a.pack", "b.pack", "c.pack.partial"))
    for path in (old, new, unfinished):
        path.write_bytes(b"pixels")
    age(old, 40)
    age(unfinished, 3)
    found = list(
        leftovers(store, unused_days=30, also={"packs/*.pack": lambda path: path.read_bytes() == b"pixels"})
    )
    assert list(leftovers(store, unused_days=30)) == [], "only what the caller names"
    assert [leftover.path for leftover in found] == [old, unfinished]
    assert all(remove_leftover(leftover) for leftover in found)
    assert [path.exists() for path in (old, new, unfinished)] == [False, True, False]


def test_what_serves_one_job_goes_after_a_day(store: Store) -> None:
    folder = store.root / "packs"
    folder.mkdir(parents=True)
    names = ("items-0a.pack", "items-0b.pack", "items-0c.pack.partial", "images.pack")
    killed, running, unfinished, other = (folder / name for name in names)
    for path in (killed, running, unfinished, other):
        path.write_bytes(b"pixels")
        age(path, 0 if path == running else 3)
    also = {"packs/*.pack": lambda path: path.read_bytes() == b"pixels"}
    found = list(leftovers(store, unused_days=30, also=also, passing="packs/items-*.pack"))
    assert [leftover.path for leftover in found] == [killed, unfinished]
    assert all(remove_leftover(leftover) for leftover in found)


def test_marks_of_rows_go_with_their_unfinished_file_or_after_it(store: Store) -> None:
    path = store.path(manifest())
    with LogitCacheWriter(path, manifest()) as writer:
        write(writer, 0, range(5))
        unfinished, (marks,) = writer.partial, marks_of(writer.partial)
    orphan = marks.with_name(f"{path.name}.host-1234.partial.12345678{MARKS}")
    orphan.write_bytes(b"")
    for each in (unfinished, marks, orphan):
        age(each, 3)
    found = list(leftovers(store, unused_days=30, kept=lambda path, reason: pytest.fail(f"{path}: {reason}")))
    assert [leftover.path for leftover in found] == [unfinished, orphan]
    assert all(remove_leftover(leftover) for leftover in found)
    assert list(store.root.iterdir()) == []


def test_listing_removes_nothing_and_removing_removes_one(store: Store) -> None:
    old, other = make(store, 40), make(store, 40, seed=1)
    found = list(leftovers(store, unused_days=30))
    assert old.exists()
    assert [remove_leftover(leftover) for leftover in found if leftover.path == old] == [True]
    assert not old.exists()
    assert other.exists()


def test_a_cache_in_use_is_neither_listed_nor_removed(store: Store) -> None:
    old = make(store, 40)
    (leftover,) = leftovers(store, unused_days=30)
    with usage.using(old):
        age(old, 40)
        assert list(leftovers(store, unused_days=0)) == []
        assert not remove_leftover(leftover)
    assert old.exists()


def test_what_a_loop_of_ones_own_has_read_lately_stays(store: Store) -> None:
    """It was removed 30 days after it was made, though it was trained from each day."""
    old = build(store.path(manifest()), manifest(num_views=1))
    age(old, 40)
    cache = LogitCache.open(old)
    assert [leftover.path for leftover in leftovers(store, unused_days=30)] == [old], "opened, as by status"
    SoftLabelDataset(TensorDataset(torch.zeros(cache.num_samples, 1)), cache, check_inputs="off")
    assert list(leftovers(store, unused_days=30)) == []


def test_what_a_dead_builder_left_can_go_and_what_a_living_one_writes_can_not(store: Store) -> None:
    of = manifest(data={"name": "unfinished"})
    store.root.mkdir()
    with LogitCacheWriter(store.path(of), of):
        (partial,) = store.root.glob("*.partial")
        age(partial, 3)
        assert list(leftovers(store, unused_days=30)) == []
    assert [found.path for found in leftovers(store, unused_days=30)] == [partial]
    age(partial, 0.1)
    assert list(leftovers(store, unused_days=30)) == []


def test_an_unfinished_file_is_not_taken_up_while_it_is_removed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = manifest()
    LogitCacheWriter(store.path(of), of).close()
    (leftover,) = leftovers(store, unused_days=0)
    held, unlink = list[object](), gc._unlink

    def taken_up_first(path: Path) -> None:
        held.append(partial.hold(store.path(of)))
        unlink(path)

    monkeypatch.setattr(gc, "_unlink", taken_up_first)
    assert remove_leftover(leftover)
    assert held == [None], "a builder goes on with a file that has no name any more"


def test_a_clock_that_is_days_ahead_makes_no_file_older(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The times of files are those of the disk's machine, which may be another."""
    weaken("no locks", monkeypatch)  # so that nothing but the time says that it is written
    published, now = make(store, days_old=0), time.time()
    with LogitCacheWriter(store.root / "toy.h5", manifest()) as writer:
        write(writer, 0, range(20))
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time", lambda: now + 40 * DAY)
            assert list(leftovers(store, unused_days=30)) == []
        age(writer.partial, 2)
        assert [found.path for found in leftovers(store, unused_days=30)] == [writer.partial]
    assert published.exists()
