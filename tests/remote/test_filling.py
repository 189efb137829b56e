"""The copy of a file elsewhere while it is filled: what is in it is right or written anew, and nothing half gets its
name.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from decant.cache import RemoteError, StorageError
from decant.cache.format import hdf5
from decant.cache.io.drafts import draft_name
from decant.cache.remote.fetching import fetch, prepare_filling, require_nothing
from decant.cache.remote.filling import Filling
from decant.cache.remote.local_folder import LocalFolder
from tests.helpers.caches import HEADER, build, manifest

NAME = "x.h5"


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> LocalFolder:
    folder = tmp_path_factory.mktemp("there")
    build(folder / NAME, manifest(70, 1000, 1))
    return LocalFolder(folder)


def begin(there: LocalFolder, into: Path) -> Filling:
    """A copy that has no block yet."""
    into.mkdir(exist_ok=True)
    stat = there.stat(NAME)
    assert stat is not None
    return Filling(there, NAME, *prepare_filling(there, NAME, stat, into / NAME, require_nothing))


def content(there: LocalFolder) -> bytes:
    return (there.root / NAME).read_bytes()


def gap(whole: bytes) -> int:
    """The first byte between two tables."""
    with tempfile.TemporaryFile() as file:
        file.write(whole)
        file.flush()
        return hdf5.check(file, NAME).tables["labels"].end


def put(place: Callable[[bytes], int], new: bytes) -> Callable[[Path, bytes], None]:
    def change(path: Path, whole: bytes) -> None:
        with open(path, "r+b") as file:
            file.seek(place(whole))
            file.write(new)

    return change


def cut(length: Callable[[bytes], int]) -> Callable[[Path, bytes], None]:
    return lambda path, whole: os.truncate(path, length(whole))


DAMAGE: dict[str, Callable[[Path, bytes], None]] = {
    "a bit of the header": put(lambda whole: 100, b"\xff"),
    "a header of zeros, as a power cut leaves it": put(lambda whole: 0, bytes(HEADER)),
    "the seal": put(lambda whole: len(whole) - 5, b"\x12"),
    "a checksum": put(lambda whole: len(whole) - 4096, b"\x12\x34"),
    "between two tables": put(gap, b"\x12"),
    "cut short": cut(lambda whole: 5000),
    "cut within the seal": cut(lambda whole: len(whole) - 1),
    "empty": cut(lambda whole: 0),
    "longer": put(len, b"more"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_no_block_has_is_written_anew(there: LocalFolder, tmp_path: Path, damage: str) -> None:
    filling, whole = begin(there, tmp_path / "into"), content(there)
    filling.fetch([0])
    filling.copy.close()
    DAMAGE[damage](filling.copy.path, whole)
    assert fetch(there, NAME, tmp_path / "into").read_bytes() == whole


def test_a_copy_whose_maker_was_killed_while_it_had_two_names_is_gone_on_with(
    there: LocalFolder, tmp_path: Path
) -> None:
    filling = begin(there, tmp_path / "into")
    filling.copy.close()
    os.link(filling.copy.path, draft_name(filling.copy.path))
    assert fetch(there, NAME, tmp_path / "into").read_bytes() == content(there)
    assert list((tmp_path / "into").glob("*.draft")) == []


def test_a_copy_that_was_about_to_get_its_name_can_be_written(
    there: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageError, match="publishing the local copy: Input/output error"):
            fetch(there, NAME, tmp_path / "into")
    (copy,) = (tmp_path / "into").glob("*.fetching")
    assert copy.stat().st_mode & 0o200
    copy.chmod(0o444)  # as an older version left it
    assert fetch(there, NAME, tmp_path / "into").stat().st_mode & 0o222 == 0


def test_a_failed_sync_drops_the_copy(
    there: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second sync would say that all is well, and pages are in memory that are not on the disk."""
    sync, failed = os.fsync, list[int]()

    def fail_once(fd: int) -> None:
        if not failed:
            failed.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        sync(fd)

    monkeypatch.setattr(os, "fsync", fail_once)
    with pytest.raises(StorageError, match="what was written cannot be trusted and is dropped"):
        fetch(there, NAME, tmp_path / "into")
    assert list((tmp_path / "into").glob("*.fetching")) == []
    assert fetch(there, NAME, tmp_path / "into").read_bytes() == content(there)


def test_what_another_has_begun_under_the_same_name_is_not_published(
    there: LocalFolder, tmp_path: Path
) -> None:
    """The first copy was removed, as for want of room, while its reader was stopped."""
    first = begin(there, tmp_path / "into")
    first.fetch(range(first.blocks.num_blocks))
    first.copy.path.unlink()
    second = begin(there, tmp_path / "into")
    assert second.copy.path == first.copy.path
    assert first.copy.is_whole()
    with pytest.raises(RemoteError, match="was removed while it was filled"):
        first.copy.publish(tmp_path / "into" / NAME)
    assert not (tmp_path / "into" / NAME).exists(), "a copy without a block has the name of a whole one"
    second.fetch(range(second.blocks.num_blocks))
    second.copy.publish(tmp_path / "into" / NAME)
    first.copy.publish(tmp_path / "into" / NAME)  # the other was first
    assert (tmp_path / "into" / NAME).read_bytes() == content(there)
    for filling in (first, second):
        filling.copy.close()


def test_blocks_that_are_damaged_in_any_table_are_fetched_again(there: LocalFolder, tmp_path: Path) -> None:
    whole, chance = content(there), np.random.default_rng(0)
    filling = begin(there, tmp_path / "into")
    filling.fetch(range(filling.blocks.num_blocks))
    for number in range(filling.blocks.num_blocks):
        for first, end in filling.blocks.ranges(number):
            os.pwrite(filling.copy.fd, b"\x5a", int(chance.integers(first, end)))
    filling.copy.close()
    assert fetch(there, NAME, tmp_path / "into").read_bytes() == whole
