"""The local copies: how much room they take, what goes first, and what stays."""

from __future__ import annotations

import gc
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from decant.cache import LogitCache, RemoteError, StorageError, Store, leftovers, remove_leftover
from decant.cache.io import usage
from decant.cache.remote import mirror
from decant.cache.remote.addresses import Address
from decant.cache.remote.filling import Filling
from decant.cache.remote.opening import open_folder
from decant.cache.remote.publishing import publish
from tests.helpers.caches import build, holds_the_answers, manifest


def stored(tmp_path: Path, *names: str) -> str:
    """A store in memory with caches of 245,800 bytes each."""
    url = f"memory://{uuid.uuid4().hex}"
    for name in names:
        publish(build(tmp_path / name, manifest(data={"name": name})), open_folder(url))
    return url


def copies() -> list[str]:
    return sorted(path.name for path in mirror.home().glob("stores/*/*.h5"))


def test_what_was_used_longest_ago_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = stored(tmp_path, "a.h5", "b.h5", "c.h5")
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "600KB")
    a, b = (LogitCache.open(f"{url}/{name}").path for name in ("a.h5", "b.h5"))
    os.utime(a, (1, 1))
    with usage.using(a):
        pass
    os.utime(b, (1e6, 1e6))
    LogitCache.open(f"{url}/c.h5")
    assert copies() == ["a.h5", "c.h5"]  # a was used since


def test_a_copy_in_use_or_unpublished_never_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = stored(tmp_path, "a.h5", "b.h5", "c.h5")
    a, b = (LogitCache.open(f"{url}/{name}").path for name in ("a.h5", "b.h5"))
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "600KB")
    mirror.mark_unpushed(b, True)
    with (
        usage.using(a),
        pytest.raises(StorageError, match=r"copies take .* and are in use; raise DECANT_CACHE_LIMIT"),
    ):
        LogitCache.open(f"{url}/c.h5")
    assert copies() == ["a.h5", "b.h5"]
    kept: list[str] = []
    store = Store(url)
    assert [found.path.name for found in leftovers(store, 0, kept=lambda path, why: kept.append(why))] == [
        "a.h5"
    ]
    assert kept == ["not published in its store yet"]
    LogitCache.open(f"{url}/c.h5")
    assert copies() == ["b.h5", "c.h5"]


def test_no_copy_goes_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = stored(tmp_path, "a.h5", "b.h5", "c.h5")
    a, _ = (LogitCache.open(f"{url}/{name}").path for name in ("a.h5", "b.h5"))
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "200KB")
    with pytest.raises(StorageError, match="more than the 200,000 that all copies may take"):
        LogitCache.open(f"{url}/c.h5")
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "300KB")
    with usage.using(a), pytest.raises(StorageError, match="and are in use"):
        LogitCache.open(f"{url}/c.h5")
    assert copies() == ["a.h5", "b.h5"]
    LogitCache.open(f"{url}/c.h5")
    assert copies() == ["c.h5"]


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "DECANT_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(user: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(StorageError, match="no home folder; let DECANT_CACHE_HOME name"):
        Store("memory://team/caches")


def test_a_copy_that_is_being_fetched_never_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = stored(tmp_path, "a.h5", "b.h5")
    fetch_most, gone = Filling.fetch_most, list[bool]()

    def meanwhile(self: Filling, *given: Any) -> None:
        gone.append(mirror.evict(self.copy.path))  # as another process does that needs its room
        gone.append(any(map(remove_leftover, leftovers(Store(url), 0))))
        fetch_most(self, *given)

    monkeypatch.setattr(Filling, "fetch_most", meanwhile)
    path = LogitCache.open(f"{url}/a.h5").path
    assert gone == [False, False]
    assert sorted(left.name for left in path.parent.iterdir()) == ["a.h5", "a.h5.source"]

    def by_hand(self: Filling, *given: Any) -> None:
        self.copy.path.unlink()
        fetch_most(self, *given)

    monkeypatch.setattr(Filling, "fetch_most", by_hand)
    with pytest.raises(RemoteError, match="was removed while it was filled; run the same command again"):
        LogitCache.open(f"{url}/b.h5")


def test_a_copy_that_was_read_lazily_stays_in_use_when_it_is_whole(tmp_path: Path) -> None:
    cache = LogitCache.open(f"{stored(tmp_path, 'a.h5')}/a.h5", lazy=True)
    with usage.using(cache.path):
        assert holds_the_answers(cache)
        cache.check_unchanged(checksums=True)
        assert cache.path.name == "a.h5"
        assert not mirror.evict(cache.path)
        cache.check_unchanged()
    path = cache.path
    del cache
    gc.collect()
    assert mirror.evict(path)


def test_a_disk_without_room_is_an_error_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stored(tmp_path, "a.h5")
    monkeypatch.setattr(mirror.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)))
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "1TB")

    class Full:
        free, total = 1000, 10**12

    monkeypatch.setattr(mirror.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(StorageError, match=r"needs 245,800 bytes, 1,000 are free on the disk"):
        LogitCache.open(f"{url}/a.h5")
    Full.free = 10**12
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "100KB")
    with pytest.raises(
        StorageError, match=r"needs 245,800 bytes, more than the 100,000 that all copies may take"
    ):
        LogitCache.open(f"{url}/a.h5")
    monkeypatch.setenv("DECANT_CACHE_LIMIT", "much")
    with pytest.raises(StorageError, match="DECANT_CACHE_LIMIT: expected a size as 200GB, found 'much'"):
        LogitCache.open(f"{url}/a.h5")


def test_unfinished_copies_are_leftovers_unless_they_are_read(tmp_path: Path) -> None:
    url = stored(tmp_path, "a.h5")
    lazy = LogitCache.open(f"{url}/a.h5", lazy=True)
    store = Store(url)
    with usage.using(lazy.path):
        assert list(leftovers(store, 0)) == []
    assert [found.path for found in leftovers(store, 0)] == [lazy.path]


@pytest.mark.parametrize("name", ["..", ".hidden.h5", "a%2Fb.h5", "a%00b.h5", "x" * 300])
def test_a_name_leads_nowhere_else(name: str) -> None:
    with pytest.raises(RemoteError, match=r"the name of a file is expected|a part that is"):
        LogitCache.open(f"https://host/caches/{name}" if "%" in name else f"memory://store/{name}")


def test_an_address_that_lost_a_slash_is_no_folder() -> None:
    for wrong in (Path("s3://team/caches"), "gs:/team/caches", "https:/me:s3cr3t@host/x.h5"):
        with pytest.raises(RemoteError, match=r"one slash is missing; write (s3|gs|https)://") as caught:
            Store(wrong)
        assert "s3cr3t" not in str(caught.value)
    with pytest.raises(RemoteError, match="one slash is missing"):
        LogitCache.open(Path("s3://team/caches/x.h5"))


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("s3fs", "gcsfs") else name)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs")):
        with pytest.raises(RemoteError, match=rf"{scheme}://team/a: .* pip install 'decant-kd\[{extra}\]'"):
            Store(f"{scheme}://team/a")


def test_passwords_and_signatures_change_no_folder_and_are_not_in_its_name() -> None:
    plain = Address.of("https://host/caches")
    secret = Address.of("https://me:s3cr3t@host/caches?sig=0f0f")
    assert plain.slug == secret.slug
    assert "s3cr3t" not in secret.shown
    assert "0f0f" not in secret.shown
    assert Address.of("https://host/others").slug != plain.slug
