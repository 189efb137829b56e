"""Processes that write one cache of a store elsewhere together: ranks, parts. And machines that build the same."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from decant.cache import CacheWarning, LogitCache, RemoteError, Store
from decant.cache.remote import mirror
from tests.helpers.caches import build, manifest
from tests.helpers.commands import TINY, decant, decant_at_once, only, succeed
from tests.helpers.extras import needs
from tests.helpers.forked_ranks import launching, one_that_speaks, run_forked

MORE = ("--set", "cache.batch_size=100")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and with the cache of one process in `whole`."""
    folder = tmp_path_factory.mktemp("together")
    succeed(decant("teacher", *TINY, cwd=folder))
    succeed(decant("cache-logits", *TINY, *MORE, "--store", "whole", cwd=folder))
    return folder


def words(store: str, *more: str) -> list[str]:
    return ["cache-logits", *TINY, *MORE, "--store", store, *more]


def holds_the_one_file(store: str, taught: Path) -> bool:
    """Whether a store elsewhere holds the file of one process, and nothing else."""
    folder, whole = Store(store).remote.folder, only(taught / "whole", "*.h5")  # type: ignore[union-attr]
    content = whole.read_bytes()
    return (
        folder.names() == {whole.name: len(content)} and folder.read(whole.name, 0, len(content)) == content
    )


class TestStores:
    pytestmark = needs("s3fs", "moto")

    def test_ranks_write_one_file_and_rank_0_publishes_it(
        self, taught: Path, bucket: str, mirror_home: Path
    ) -> None:
        store = f"s3://{bucket}/caches"
        done = run_forked(2, lambda rank: words(store), taught)
        assert [rank.returncode for rank in done] == [0, 0], done
        assert holds_the_one_file(store, taught)
        assert not list(mirror_home.rglob("*.unpushed"))
        again = run_forked(2, lambda rank: words(store), taught, DECANT_CACHE_HOME=str(mirror_home / "other"))
        assert "nothing to do, no teacher was loaded" in again[0].stdout

    def test_ranks_that_do_not_see_the_folder_of_copies_are_told(self, taught: Path, bucket: str) -> None:
        more = {"DECANT_RANKS_TIMEOUT": "5"}
        with launching(2) as given:
            commands = [
                (words(f"s3://{bucket}/caches"), {**given(rank), **more, "DECANT_CACHE_HOME": f"home-{rank}"})
                for rank in range(2)
            ]
            line = one_that_speaks(decant_at_once(commands, taught))
        assert "home-1/" in line
        assert "let DECANT_CACHE_HOME name one that all machines share, or compute parts" in line

    def test_the_part_that_comes_last_publishes_the_whole(
        self, taught: Path, bucket: str, mirror_home: Path
    ) -> None:
        store = f"s3://{bucket}/caches"
        said = succeed(decant(*words(store, "--part", "2/2"), cwd=taught))
        assert "all parts need this file: let DECANT_CACHE_HOME name a folder that all machines share" in said
        assert Store(store).remote.names() == {}  # type: ignore[union-attr]
        assert mirror_home / "stores" in Path(said.split(" of ")[2].partition(":")[0]).parents
        succeed(decant(*words(store, "--part", "1/2"), cwd=taught))
        assert holds_the_one_file(store, taught)
        assert not list(mirror_home.rglob("*.unpushed"))


def at(home: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store as another machine sees it."""
    monkeypatch.setenv("DECANT_CACHE_HOME", str(home))
    return Store(store)


def cut_off(store: Store, monkeypatch: pytest.MonkeyPatch, device: str, *, joining: bool) -> Path:
    """A cache that was built, and whose process was killed before it was published."""

    def killed(path: Path) -> Any:
        raise RemoteError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(store.remote, "push", killed)
        of = manifest(info={"device": device})
        with pytest.raises(RemoteError), store.joining(of) if joining else store.building(of) as path:
            build(path, of)
    assert mirror.is_unpushed(path)
    return path


@pytest.mark.parametrize("joining", [False, True])
def test_a_part_or_a_whole_that_was_not_published_is_so_when_it_is_next_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, joining: bool
) -> None:
    store = at(tmp_path / "home", f"memory://{uuid.uuid4().hex}", monkeypatch)
    path = cut_off(store, monkeypatch, "here", joining=joining)
    assert store.find(manifest()) == path
    assert store.remote is not None
    assert store.remote.names() == {path.name: path.stat().st_size}
    assert not mirror.is_unpushed(path)


def test_a_mark_stays_while_parts_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = at(tmp_path / "home", f"memory://{uuid.uuid4().hex}", monkeypatch)
    with store.joining(manifest()):
        with store.joining(manifest()) as path:
            pass  # a part that ends before the others do
        build(path)
    assert list(store.remote.names()) == [path.name]  # type: ignore[union-attr]
    assert not mirror.is_unpushed(path)


@pytest.mark.parametrize("by", ["find", "open", "lazy"])
def test_what_another_has_published_takes_the_place_of_what_was_not_which_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    here = at(tmp_path / "here", url, monkeypatch)
    path = cut_off(here, monkeypatch, "here", joining=False)
    other = at(tmp_path / "other", url, monkeypatch)
    with other.building(manifest()) as theirs:
        build(theirs, manifest(info={"device": "there"}))
    monkeypatch.setenv("DECANT_CACHE_HOME", str(tmp_path / "here"))

    def read() -> None:
        if by == "find":
            assert here.find(manifest()) == path
            return
        cache = LogitCache.open(f"{url}/{path.name}", lazy=by == "lazy")
        assert cache.verify() == []
        cache.check_unchanged()

    with pytest.warns(
        CacheWarning, match=rf"{path}: was built here, and {url}/.* has taken its place"
    ) as said:
        read()
    assert len(said) == 1
    assert path.read_bytes() == theirs.read_bytes()
    assert not mirror.is_unpushed(path)


def test_the_very_same_bytes_need_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    here = at(tmp_path / "here", url, monkeypatch)
    path = cut_off(here, monkeypatch, "same", joining=False)
    other = at(tmp_path / "other", url, monkeypatch)
    with other.building(manifest()) as theirs:
        build(theirs, manifest(info={"device": "same"}))
    assert here.find(manifest()) == path
    assert not mirror.is_unpushed(path)


def test_who_comes_second_goes_on_with_its_own_and_then_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    other, here = at(tmp_path / "other", url, monkeypatch), at(tmp_path / "here", url, monkeypatch)
    theirs = build(other.path(manifest()), manifest(info={"device": "there"}))

    def build_meanwhile() -> None:
        with here.building(manifest()):
            build(here.path(manifest()), manifest(info={"device": "here"}))
            other.remote.push(theirs)  # type: ignore[union-attr]

    with pytest.warns(
        CacheWarning, match=r"with other logits; it stays there, and takes the place of .* when"
    ):
        build_meanwhile()
    with pytest.warns(CacheWarning, match="has taken its place"):
        assert here.find(manifest()) is not None
    assert here.path(manifest()).read_bytes() == theirs.read_bytes()
