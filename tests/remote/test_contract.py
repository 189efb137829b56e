"""What every kind of store promises, by the same tests."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from decant.cache import CorruptError, LogitCache, MismatchError, StorageError, Store
from decant.cache.remote import mirror
from decant.cache.remote.fetching import fetch, require_key
from decant.cache.remote.folder import ChangedError, NoRangesError
from decant.cache.remote.publishing import publish
from tests.helpers.caches import build, holds_the_answers, manifest
from tests.remote.conftest import Kind

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return build(Store(tmp_path / "made").path(manifest()))


def address(store: Kind, name: str) -> str:
    return f"{store.url}/{name}"


def test_what_is_not_there_is_none_and_no_error(store: Kind, tmp_path: Path) -> None:
    assert store.folder.stat("x.h5") is None
    if store.folder.promises.lists:
        assert store.folder.names() == {}
    with pytest.raises(FileNotFoundError, match="no such cache"):
        fetch(store.folder, "x.h5", tmp_path / "copies")


def test_parts_of_a_file_are_read_exactly(store: Kind, cache: Path) -> None:
    store.place(cache)
    stat, content = store.folder.stat(cache.name), cache.read_bytes()
    assert stat is not None
    assert stat.size == len(content)
    if store.folder.promises.lists:
        assert store.folder.names() == {cache.name: len(content)}
    for first, end in ((0, 1), (5, 70_000), (len(content) - 40, len(content))):
        if store.name == "http-whole":
            with pytest.raises(NoRangesError, match="sends whole files alone"):
                store.folder.read(cache.name, first, end, stat.tag)
        else:
            assert store.folder.read(cache.name, first, end, stat.tag) == content[first:end]
    parts: list[bytes] = []
    store.folder.copy_to(cache.name, parts.append, stat.tag)
    assert b"".join(parts) == content


def test_a_copy_has_the_very_bytes_and_is_not_asked_for_again(
    store: Kind, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.place(cache)
    if store.url.startswith("/"):
        copy = fetch(store.folder, cache.name, mirror.home() / "stores" / "local")
    else:
        copy = LogitCache.open(address(store, cache.name)).path
    assert copy.read_bytes() == cache.read_bytes()
    assert holds_the_answers(LogitCache.open(copy))
    assert not copy.stat().st_mode & 0o222
    assert not [path for path in copy.parent.iterdir() if path.name.endswith(mirror.FETCHING)]
    monkeypatch.setattr(store.folder, "read", None)
    monkeypatch.setattr(store.folder, "copy_to", None)
    assert fetch(store.folder, cache.name, copy.parent) == copy


def test_a_damaged_block_is_refused_by_name(store: Kind, cache: Path) -> None:
    content = bytearray(cache.read_bytes())
    content[40_000] ^= 1
    cache.chmod(0o644)
    cache.write_bytes(content)
    store.place(cache)
    with pytest.raises(CorruptError, match=r"view 0, block 0 \(rows 0 to 31\)"):
        fetch(store.folder, cache.name, mirror.home() / "stores" / "s")
    assert not (mirror.home() / "stores" / "s" / cache.name).exists()


def test_another_key_is_refused_before_any_row_is_asked_for(store: Kind, cache: Path) -> None:
    store.place(cache)
    with pytest.raises(MismatchError, match="does not hold what its name says: key expected 00"):
        fetch(store.folder, cache.name, mirror.home() / "stores" / "s", require_key("00" * 32))
    assert not list((mirror.home() / "stores" / "s").glob("*.h5"))


def test_publishing_makes_the_file_once_and_replaces_none(store: Kind, cache: Path, tmp_path: Path) -> None:
    if not store.folder.promises.writes:
        with pytest.raises(StorageError, match="can only be read"):
            publish(cache, store.folder)
        return
    first, again = publish(cache, store.folder), publish(cache, store.folder)
    assert (first.made, first.same, again.made, again.same) == (True, True, False, True)
    assert set(store.folder.names()) == {cache.name}
    other = build(tmp_path / "other.h5", manifest(num_views=1))
    with pytest.raises(MismatchError, match="has that name and another key"):
        publish(other, store.folder, cache.name)
    assert fetch(store.folder, cache.name, tmp_path / "copies").read_bytes() == cache.read_bytes()


def test_a_file_that_appears_meanwhile_stays(store: Kind, cache: Path, tmp_path: Path) -> None:
    """Of two who publish at once, both having seen no file, one makes it."""
    if not store.folder.promises.conditional:
        return
    other = tmp_path / "other.h5"
    other.write_bytes(b"another" * 10)
    seen = store.folder.stat
    store.place(other)
    store.folder.stat = lambda name: None  # type: ignore[method-assign]
    try:
        made = store.folder.put("other.h5", cache, lambda count: None)
    except StorageError:
        made = False
    store.folder.stat = seen  # type: ignore[method-assign]
    assert not made
    assert store.folder.read("other.h5", 0, 70) == b"another" * 10


def test_small_files_are_made_once_replaced_and_removed(store: Kind) -> None:
    if not store.folder.promises.writes:
        return
    assert store.folder.put_small("note", b"one")
    assert not store.folder.put_small("note", b"two")
    assert store.folder.read("note", 0, 3) == b"one"
    assert store.folder.put_small("note", b"four", replace=True)
    assert store.folder.read("note", 0, 4) == b"four"
    store.folder.remove("note")
    store.folder.remove("note")
    assert store.folder.stat("note") is None


def test_a_file_that_was_replaced_is_not_read_on(store: Kind) -> None:
    if store.name in ("memory", "http-whole"):  # which do not say, or begin anew each time
        return
    if store.folder.promises.writes:
        put = functools.partial(store.folder.put_small, "x.h5", replace=True)
    else:
        put = functools.partial(Path(store.served, "x.h5").write_bytes)
    put(b"before")
    stat = store.folder.stat("x.h5")
    assert stat is not None
    assert store.folder.read("x.h5", 2, 6, stat.tag) == b"fore"
    put(b"another, and longer")
    with pytest.raises(ChangedError, match=r"x\.h5: was replaced while it was read"):
        store.folder.read("x.h5", 2, 6, stat.tag)


def test_a_store_is_searched_by_key_and_built_into(store: Kind, cache: Path) -> None:
    if store.url.startswith("/"):
        return
    here = Store(store.url)
    if not store.folder.promises.writes:
        store.place(cache)
        found = here.find(manifest())
        assert found is not None
        assert found.parent == here.root
        with pytest.raises(StorageError, match="can only be read"), here.building(manifest(num_views=1)):
            pass
        return
    assert here.find(manifest()) is None
    with here.building(manifest()) as path:
        build(path)
    assert set(store.folder.names()) == {path.name}
    shutil.rmtree(here.root)
    found = here.find(manifest())
    assert found is not None
    assert holds_the_answers(LogitCache.open(found))
    assert here.resolve(manifest().key[:8]) == found
    assert here.find(manifest(num_views=1)) is None


def test_rows_are_read_lazily_and_then_the_copy_is_whole(store: Kind, cache: Path) -> None:
    if store.url.startswith("/"):
        return
    store.place(cache)
    lazy = LogitCache.open(address(store, cache.name), lazy=True)
    whole = LogitCache.open(cache)
    assert np.array_equal(lazy.logits([49, 3], 1), whole.logits([49, 3], 1))
    assert holds_the_answers(lazy)
    lazy.check_unchanged()
    assert lazy.path.name == cache.name
    assert lazy.path.read_bytes() == cache.read_bytes()
    lazy.check_unchanged(checksums=True)
