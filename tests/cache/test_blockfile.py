"""Files of blocks: what is not as it was written is found, in every kind of such files, and nothing else is refused."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import CacheError, IncompleteError, StorageError
from decant.cache.io import block_checks, span_checks
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.block_layout import WRITTEN, expected_entry
from decant.cache.io.blockfile import BlockFile
from decant.pipeline.errors import DamagedError
from tests.helpers.block_files import KINDS, Kind, entries


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]()


def stop_before_publishing(kind: Kind, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unfinished file whose blocks are all written."""

    def stop(file: BlockFile) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(BlockFile, "sync", stop)
        with pytest.raises(KeyboardInterrupt):
            kind.build(root)
    (unfinished,) = kind.unfinished(root)
    return unfinished


def flip(path: Path, place: int) -> None:
    """One bit of a byte changed."""
    path.chmod(0o644)
    with open(path, "r+b") as file:
        before = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([before ^ 16]), place)


def places(kind: Kind, path: Path) -> list[int]:
    """The first and last byte of every range of every block, and a byte of every entry."""
    layout = kind.layout(path)
    found = [
        place
        for block in range(layout.num_blocks)
        for first, end in layout.ranges(block)
        for place in (first, end - 1)
    ]
    return sorted({*found, *(layout.entries_offset + 8 * block for block in range(layout.num_blocks))})


# What lies in them


def test_every_entry_is_that_of_its_bytes(kind: Kind, tmp_path: Path) -> None:
    path = kind.build(tmp_path)
    layout, content = kind.layout(path), path.read_bytes()
    assert len(content) == layout.size
    found = np.frombuffer(content, "<u8", layout.num_blocks, layout.entries_offset)
    assert found.tolist() == [
        expected_entry(layout, lambda first, end: content[first:end], block)
        for block in range(layout.num_blocks)
    ]
    assert (found >= WRITTEN).all()


def test_a_block_is_marked_when_all_its_bytes_are_written(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others read what is marked, and leave it out of what they write."""
    begun, write = set[tuple[int, int]](), BlockFile.write

    def look(file: BlockFile, first: int, content: bytes | memoryview) -> None:
        layout, place = file.layout, (first - file.layout.entries_offset) // 8
        if 0 <= place < layout.num_blocks:
            for number, entry in enumerate(np.frombuffer(bytes(content), "<u8").tolist(), place):
                assert entry in (0, expected_entry(layout, file.read, number)), "marked before it is written"
                begun.add((file.fd, number))
        write(file, first, content)

    monkeypatch.setattr(BlockFile, "write", look)
    kind.build(tmp_path)
    assert len(begun) > 1


# What is not as it was written


def test_a_bit_that_changed_while_nobody_built_is_written_anew(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "never").mkdir()
    expected = kind.build(tmp_path / "never").read_bytes()
    (tmp_path / "measured").mkdir()
    changed = places(kind, stop_before_publishing(kind, tmp_path / "measured", monkeypatch))
    assert len(changed) > 10
    for place in changed:
        folder = tmp_path / str(place)
        folder.mkdir()
        flip(stop_before_publishing(kind, folder, monkeypatch), place)
        assert kind.build(folder).read_bytes() == expected, f"byte {place:,}"


def test_a_bit_that_changed_once_published_is_refused_by_whoever_reads_it(kind: Kind, tmp_path: Path) -> None:
    path = kind.build(tmp_path)
    assert kind.is_sound(path)
    for place in places(kind, path):
        flip(path, place)
        with pytest.raises(
            (CacheError, DamagedError), match=r"not as it was written|not as they were written"
        ):
            kind.is_sound(path)
        flip(path, place)
    assert kind.is_sound(path)


def test_a_block_that_was_never_written_is_refused(kind: Kind, tmp_path: Path) -> None:
    path = kind.build(tmp_path)
    path.chmod(0o644)
    layout = kind.layout(path)
    with open(path, "r+b") as file:
        BlockFile(file.fileno(), layout, path).write_entry(layout.num_blocks - 1, 0)
    with pytest.raises((CacheError, DamagedError), match=r"not written|never written"):
        kind.is_sound(path)


# A disk that fails


def test_a_sync_that_fails_is_not_tried_again_and_leaves_nothing(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_sync, calls = os.fsync, []

    def fail(fd: int) -> None:
        if os.fstat(fd).st_size and not calls and all_written():
            calls.append(fd)
            raise OSError(errno.EIO, "Input/output error")
        really_sync(fd)

    def all_written() -> bool:
        return any(entries(kind, found).all() for found in kind.unfinished(tmp_path))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="syncing; what was written cannot be trusted"):
        kind.build(tmp_path)
    assert len(calls) == 1
    assert kind.unfinished(tmp_path) == []
    assert not kind.path(tmp_path).exists()
    assert kind.is_sound(kind.build(tmp_path))


# Publishing


class Bytes:
    """Eight blocks of one byte, then their entries."""

    size, num_blocks, entries_offset = 72, 8, 8

    def ranges(self, block: int) -> list[tuple[int, int]]:
        return [(block, block + 1)]


def content_of(data: bytes) -> bytearray:
    entries = [expected_entry(Bytes(), lambda first, end: data[first:end], block) for block in range(8)]
    return bytearray(data + b"".join(entry.to_bytes(8, "little") for entry in entries))


def begin(path: Path, header: bytes = b"") -> BlockFile:
    """A file of eight blocks of one byte, open for the test."""
    file = BlockFile(os.open(path, os.O_RDWR | os.O_CREAT), Bytes(), path)
    file.create(header)
    return file


def test_a_file_is_published_once_every_block_is_written(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    path.write_bytes(b"from before")
    file = begin(tmp_path / "letters.partial")
    for block in range(8):
        with pytest.raises(
            IncompleteError, match=f"letters.partial: {8 - block} of 8 blocks are not written"
        ):
            file.publish(path)
        assert path.read_bytes() == b"from before"
        file.write_block(block, b"abcdefgh"[block : block + 1])
    file.publish(path)
    os.close(file.fd)
    assert path.read_bytes() == content_of(b"abcdefgh")
    assert [found.name for found in tmp_path.iterdir()] == ["letters"]
    assert path.stat().st_mode & 0o222 == 0


def test_what_another_builder_has_published_from_the_same_file_stays(tmp_path: Path) -> None:
    """Where there are no locks, two builders write the same bytes into one file."""
    path, begun = tmp_path / "letters", tmp_path / "letters.partial"
    first = begin(begun)
    second = BlockFile(os.open(begun, os.O_RDWR), Bytes(), begun)
    for block in range(8):
        for file in (first, second):
            file.write_block(block, b"abcdefgh"[block : block + 1])
    first.publish(path)
    second.publish(path)
    assert path.read_bytes() == content_of(b"abcdefgh")


def test_a_file_is_gone_on_with_only_where_its_size_and_header_are_right(tmp_path: Path) -> None:
    path = tmp_path / "letters"
    file = begin(path, b"ab")
    assert file.was_created(b"ab")
    assert not file.was_created(b"ax")
    os.truncate(path, 71)
    assert not file.was_created(b"ab")
    os.close(file.fd)


# Checking lazily


def checks_of(
    content: bytearray,
    *,
    trusted: bool = False,
    ahead: bool = False,
    repair: Callable[[list[int]], None] | None = None,
) -> tuple[BlockChecks, list[int]]:
    """The checks, and the bytes that they read."""
    read = list[int]()

    def note(first: int, end: int) -> bytes:
        read.extend(range(first, end))
        return bytes(content[first:end])

    checks = BlockChecks(Bytes(), note, trusted=trusted, ahead=ahead, repair=repair)
    assert read == [*range(8, 72)], "the entries"
    read.clear()
    return checks, read


def test_a_block_is_checked_once_and_only_when_it_is_needed() -> None:
    checks, read = checks_of(content_of(b"abcdefgh"))
    assert checks.first_damaged(np.array([5, 2, 5, 2])) is None
    assert sorted(read) == [2, 5]
    assert checks.first_damaged(np.array([2, 3])) is None
    assert sorted(read) == [2, 3, 5]
    assert not checks.all_sound
    assert checks.first_damaged(np.arange(8)) is None
    assert checks.all_sound
    assert sorted(read) == list(range(8))


def test_a_damaged_block_is_found_each_time_and_others_are_read() -> None:
    content = content_of(b"abcdefgh")
    content[3] ^= 1
    checks, _ = checks_of(content)
    for _ in range(2):
        assert checks.first_damaged(np.arange(8)) == 3
        assert checks.first_damaged(np.array([0, 1, 2, 4])) is None
    assert checks.check_all() == [3]
    assert not checks.all_sound
    content[6] ^= 1
    assert checks_of(content)[0].first_damaged(np.arange(7, -1, -1)) == 3, "the first in the file"
    content[6] ^= 1
    content[3] ^= 1
    assert checks.check_all() == []
    assert checks.all_sound


def test_who_changes_the_file_does_not_change_what_blocks_are_compared_with() -> None:
    content = content_of(b"abcdefgh")
    checks = BlockChecks(Bytes(), lambda first, end: memoryview(content)[first:end])
    content[:8], content[8:72] = b"ijklmnop", content_of(b"ijklmnop")[8:72]
    assert checks.check_all() == [*range(8)]


def test_trusted_blocks_are_not_read_until_all_are_checked() -> None:
    content = content_of(b"abcdefgh")
    content[3] ^= 1
    checks, read = checks_of(content, trusted=True)
    assert checks.all_sound
    assert (checks.changed(), read) == ([], [])
    assert checks.changed(trusted=True) == [3], "once the file is known to have changed"
    read.clear()
    assert checks.first_damaged(np.arange(8)) is None
    assert read == []
    assert checks.check_all() == [3]
    assert checks.first_damaged(np.array([3])) == 3


def test_blocks_together_have_the_entries_that_they_have_one_by_one(kind: Kind, tmp_path: Path) -> None:
    """In any order, and also of other bytes than were written."""
    path = kind.build(tmp_path)
    layout, content = kind.layout(path), bytearray(path.read_bytes())
    blocks = np.random.default_rng(0).permutation(layout.num_blocks)

    def read(first: int, end: int) -> bytes:
        return bytes(content[first:end])

    for _ in range(2):
        expected = [expected_entry(layout, read, block) for block in blocks.tolist()]
        assert block_checks.expected_entries(layout, read, blocks).tolist() == expected
        ordered = block_checks.expected_entries(layout, read, np.sort(blocks)).tolist()
        assert ordered == [entry for _, entry in sorted(zip(blocks.tolist(), expected, strict=True))]
        content[:] = os.urandom(len(content))


def test_who_reads_much_has_blocks_checked_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the file, from where the reader is; a damaged one is refused when it is read, and not before."""
    monkeypatch.setattr(span_checks, "_SPAN", 1)  # no two blocks together, or what is read would not tell
    monkeypatch.setattr(block_checks, "_AHEAD", 18)  # two of its blocks, with their entries
    monkeypatch.setattr(block_checks, "_FEW", 1)
    monkeypatch.setattr(block_checks, "_SHARE", 4)
    content = content_of(b"abcdefgh")
    content[6] ^= 1
    checks, read = checks_of(content, ahead=True)
    assert checks.first_damaged(np.array([5, 5])) is None
    assert checks.first_damaged(np.array([3])) is None
    assert read == [5, 3], "one block or two of eight are not much"
    assert checks.first_damaged(np.array([4])) is None
    assert read == [5, 3, 4, 6, 7], "those that come next"
    assert checks.first_damaged(np.array([7, 4])) is None
    assert len(read) == 5
    assert checks.first_damaged(np.array([0])) is None
    assert read[5:] == [0, 1, 2]
    assert not checks.all_sound
    assert checks.first_damaged(np.array([6])) == 6
    content[6] ^= 1
    assert checks.first_damaged(np.array([6])) is None
    assert checks.all_sound


def test_blocks_that_would_have_to_be_fetched_are_not_checked_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_checks, "_FEW", 0)
    fetched = list[int]()
    checks, read = checks_of(content_of(b"abcdefgh"), ahead=True, repair=fetched.extend)
    assert checks.first_damaged(np.arange(4)) is None
    assert (read, fetched, checks.all_sound) == ([0, 1, 2, 3], [], False)


def test_a_damaged_block_is_never_taken_for_a_checked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a moment: another thread, or a worker that was forked, may read just then."""

    class Watched(np.ndarray[Any, Any]):
        def __setitem__(self, *item: Any) -> None:
            super().__setitem__(*item)
            assert np.asarray(self)[3], "block 3 is damaged"

    content = content_of(b"abcdefgh")
    content[3] ^= 1
    checks, _ = checks_of(content, ahead=True)
    monkeypatch.setattr(checks, "_pending", checks._pending.view(Watched))
    monkeypatch.setattr(block_checks, "_FEW", 0)
    assert checks.first_damaged(np.array([1, 2, 5])) is None
    assert checks.first_damaged(np.array([3, 4])) == 3
    assert checks.check_all() == [3]


@pytest.mark.parametrize("span", [2, 1 << 20], ids=["in spans", "together"])
@pytest.mark.parametrize(
    "piece", [1, 9, 1 << 20], ids=["more pieces than blocks", "two threads", "one thread"]
)
def test_damage_is_found_however_blocks_are_read(
    span: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the blocks, and not in those that were never written."""
    monkeypatch.setattr(block_checks, "_PIECE", piece)
    monkeypatch.setattr(block_checks, "_SPAN", span)
    monkeypatch.setattr(span_checks, "_SPAN", span)
    content = content_of(b"abcdefgh")
    entries = np.frombuffer(bytes(content[8:]), "<u8").copy()
    for block in (0, 3, 5, 7):
        content[block] ^= 1
    entries[5] = 0
    threads = set[int]()

    def read(first: int, end: int) -> bytes:
        threads.add(threading.get_ident())
        return bytes(content[first:end])

    assert block_checks.damaged_blocks(Bytes(), read, entries) == [0, 3, 7]
    assert (threading.get_ident() in threads) == (piece > 9)


def test_what_another_has_begun_under_the_same_name_is_not_published(tmp_path: Path) -> None:
    """Where there are no locks, a builder that was stopped meanwhile."""
    path, begun = tmp_path / "letters", tmp_path / "letters.partial"
    first = begin(begun)
    for block in range(8):
        first.write_block(block, b"abcdefgh"[block : block + 1])
    begun.unlink()
    second = begin(begun)
    first.publish(path)
    assert not path.exists()
    assert begun.exists()
    for file in (first, second):
        os.close(file.fd)


def test_a_failed_sync_is_named_also_where_the_file_can_no_longer_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system mounts a disk that fails to be read alone."""

    def refuse(*_: object, **more: object) -> None:
        raise OSError(errno.EIO if not more else errno.EROFS, "fails")

    file = begin(tmp_path / "letters.partial")
    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(os, "unlink", lambda *_, **more: refuse(file=True))
    with pytest.raises(StorageError, match=r"letters\.partial: syncing; what was written cannot be trusted"):
        file.sync()
    os.close(file.fd)


def test_a_file_is_synced_then_named_then_its_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = begin(tmp_path / "letters.partial")
    for block in range(8):
        file.write_block(block, b"abcdefgh"[block : block + 1])
    done, rename = list[str](), os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: done.append("file" if fd == file.fd else "folder"))
    monkeypatch.setattr(os, "rename", lambda *names: (done.append("name"), rename(*names)))
    file.publish(tmp_path / "letters")
    assert done == ["file", "name", "folder"]
    os.close(file.fd)


def test_a_damaged_block_is_marked_in_the_file_too(tmp_path: Path) -> None:
    """Whoever is killed before it is written anew would else leave it as one that was synced."""
    file = begin(tmp_path / "letters.partial")
    file.write_block(3, b"d")
    file.write(3, b"x")
    assert file.forget_damaged(file.read_entries()) == [3]
    assert not file.read_entries().any()
    os.close(file.fd)
