"""Whoever goes on with a file reads back what was not synced, and what is published was read whole all the same."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCacheWriter, StorageError, Store, leftovers, partial_rows, remove_leftover
from decant.cache.io import synced
from decant.cache.io.blockfile import BlockFile
from decant.cache.io.partial import begun, synced_of
from tests.helpers import caches
from tests.helpers.caches import build, manifest, write, write_missing

OF = manifest(320, num_views=1)  # ten blocks of 32 rows, of 64,384 bytes each
EVERY = 2  # blocks


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of seven blocks, of which the first six were synced two by two."""
    monkeypatch.setattr(synced, "SYNC_BYTES", EVERY * 64_000)
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, OF) as writer:
        for block in range(7):
            write(writer, 0, range(32 * block, 32 * block + 32))
    return path


@pytest.fixture
def read_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each read of a `BlockFile` had."""
    counts, read = list[int](), BlockFile.read

    def counted(self: BlockFile, first: int, end: int) -> bytes:
        counts.append(end - first)
        return read(self, first, end)

    monkeypatch.setattr(BlockFile, "read", counted)
    return counts


def overwrite(path: Path, row: int, content: bytes = bytes(2000)) -> None:
    """Bytes of a row that did not reach the disk, or were changed on it."""
    (unfinished,) = begun(path)
    with LogitCacheWriter(path, OF) as writer:
        offset = writer.blocks.offset("logits", 0, row)
    with open(unfinished, "r+b") as file:
        file.seek(offset)
        file.write(content)


def test_what_was_synced_is_not_read_back(path: Path, read_back: list[int]) -> None:
    with LogitCacheWriter(path, OF) as writer:
        assert np.flatnonzero(~writer.is_written()).tolist() == list(range(224, 320))
    assert sum(read_back) <= 64_384 + 8 * 10, "the one block that no sync came after, and the entries"


def test_without_a_log_everything_is_read_back(path: Path, read_back: list[int]) -> None:
    for log in synced_of(begun(path)[0]):
        log.unlink()
    LogitCacheWriter(path, OF).close()
    assert sum(read_back) >= 7 * 64_384


def test_a_block_that_a_power_cut_tore_after_the_last_sync_is_written_again(path: Path) -> None:
    """Its entry is on the disk, and it is not."""
    overwrite(path, 6 * 32 + 1)
    with LogitCacheWriter(path, OF) as writer:
        assert write_missing(writer) == 4 * 32
        writer.publish()
    assert path.read_bytes() == build(path.with_name("whole.h5"), OF).read_bytes()


def test_a_synced_block_that_changed_on_the_disk_is_never_published(path: Path) -> None:
    overwrite(path, 5)
    with LogitCacheWriter(path, OF) as writer:
        assert write_missing(writer) == 3 * 32
        with pytest.raises(StorageError, match=r"view 0, block 0 .* does not read back as written"):
            writer.publish()
    assert not path.exists()
    with LogitCacheWriter(path, OF) as writer:
        assert write_missing(writer) == 32
        writer.publish()
    assert path.read_bytes() == build(path.with_name("whole.h5"), OF).read_bytes()
    assert caches.leftovers(path.parent) == []


@pytest.mark.parametrize(
    "content",
    [
        b"half a record",
        np.array([(2**63, 5), (10, 6), (3, 2**32 + 1)], "<u8,<u8").tobytes(),
        np.array([(block, 0) for block in range(10)], "<u8,<u8").tobytes(),
    ],
    ids=["torn", "of other entries, and blocks that there are not", "of unwritten blocks"],
)
def test_a_log_that_says_something_else_is_not_believed(
    path: Path, read_back: list[int], content: bytes
) -> None:
    (log,) = synced_of(begun(path)[0])
    log.write_bytes(content)
    LogitCacheWriter(path, OF).close()
    assert sum(read_back) >= 7 * 64_384


def test_what_is_no_file_is_no_log(path: Path, read_back: list[int]) -> None:
    (log,) = synced_of(begun(path)[0])
    content = log.rename(path.with_name("elsewhere"))
    log.symlink_to(content)
    os.mkfifo(log.with_name(log.name.replace(".synced", "0.synced")))
    LogitCacheWriter(path, OF).close()
    assert sum(read_back) >= 7 * 64_384


def test_every_process_has_a_log_of_its_own(path: Path, read_back: list[int]) -> None:
    with LogitCacheWriter(path, OF) as writer:
        for block in (7, 8):
            write(writer, 0, range(32 * block, 32 * block + 32))
    assert len(synced_of(begun(path)[0])) == 2
    read_back.clear()
    with LogitCacheWriter(path, OF) as writer:
        assert sum(read_back) <= 64_384 + 8 * 10, "block 6 alone"
        assert write_missing(writer) == 32
        writer.publish()
    assert caches.leftovers(path.parent) == []


def test_the_disk_begins_with_what_was_written_before_a_sync_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synced, "START_BYTES", 2 * 64_000)
    monkeypatch.setattr(synced, "SYNC_BYTES", 5 * 64_000)
    calls = list[str]()
    monkeypatch.setattr(partial_rows, "start_writing_out", lambda fd: calls.append("start"))
    monkeypatch.setattr(
        os, "fsync", lambda fd: calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync")
    )
    with LogitCacheWriter(tmp_path / "c.h5", manifest(32 * 12, num_views=1)) as writer:
        calls.clear()  # of the header
        for first in range(0, 32 * 12, 32):
            write(writer, 0, np.arange(first, first + 32))
    names = [
        "folder"
    ]  # once, with the first log: what a power cut leaves no name of would be lost all the same
    assert calls == ["start", "start", "sync", *names, "start", "start", "sync", "start"]


def test_a_failed_sync_in_the_middle_drops_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synced, "SYNC_BYTES", 64_000)
    with LogitCacheWriter(tmp_path / "cache.h5", OF) as writer:
        write(writer, 0, range(32))

        def fail(_: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match="what was written cannot be trusted and is dropped"):
            write(writer, 0, range(32, 64))
    assert list(tmp_path.iterdir()) == []


def test_logs_go_with_their_file_when_unused_files_are_removed(path: Path) -> None:
    store = Store(path.parent)
    for found in leftovers(store, unused_days=0):
        assert found.path.suffix == ".partial", "and the log with it"
        assert remove_leftover(found)
    assert list(path.parent.iterdir()) == []


def test_what_a_writer_syncs_by_itself_is_not_read_back(path: Path, read_back: list[int]) -> None:
    with LogitCacheWriter(path, OF) as writer:
        write(writer, 0, range(224, 256))
        writer.sync()
    read_back.clear()
    LogitCacheWriter(path, OF).close()
    assert sum(read_back) <= 64_384 + 8 * 10, "the block that the first writer left without a sync"
