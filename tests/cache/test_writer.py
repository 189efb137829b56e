"""The writer: rows in any order give one file, and whatever the disk refuses leaves one that can be gone on with."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decant.cache import (
    CacheError,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    StorageError,
    ValueRefusedError,
)
from decant.cache.io import partial
from tests.helpers.caches import answers, build, holds_the_answers, leftovers, manifest, write, write_missing
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished, python


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for number, of in enumerate(
        [manifest(), manifest(3, 2, 1), manifest(dtype="float32"), manifest(num_targets=4)]
    ):
        assert holds_the_answers(LogitCache.open(build(tmp_path / f"{number}.h5", of), verify="open"))


@settings(max_examples=25)
@given(
    order=st.permutations(range(100)),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    reopened=st.sets(st.integers(0, 8)),
)
def test_any_order_and_any_interruption_give_the_same_bytes(
    tmp_path: Path, order: list[int], cuts: list[int], reopened: set[int]
) -> None:
    """Rows come shuffled over both views, in batches of any size; between some of them the writer is opened again."""
    of, path = manifest(50, 1000, 2), tmp_path / "cache.h5"
    expected = tmp_path / "expected.h5"
    if not expected.exists():
        build(expected, of)
    writer = LogitCacheWriter(path, of)
    for number, batch in enumerate(np.split(np.array(order), sorted(cuts))):
        for view in range(2):
            write(writer, view, batch[batch // 50 == view] % 50)
        if number in reopened:
            writer.close()
            writer = LogitCacheWriter(path, of)
    write_missing(writer)
    writer.publish()
    assert path.read_bytes() == expected.read_bytes()
    path.unlink()


def test_who_changes_what_is_said_to_be_written_changes_nothing(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        writer.is_written(0)[:] = True
        with pytest.raises(IncompleteError):
            writer.publish()
        assert write_missing(writer) == 100
        assert holds_the_answers(LogitCache.open(writer.publish()))


def test_a_resumed_writer_computes_only_missing_rows(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(100)) as writer:
        write(writer, 0, range(70))
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(100)) as writer:
        assert np.flatnonzero(~writer.is_written(0)).tolist() == list(range(70, 100))
        assert not writer.is_written(1).any()


def test_a_block_that_was_damaged_meanwhile_is_written_again(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        table = writer.layout.tables["logits"]
        os.pwrite(writer._rows.fd, b"\x77", table.offset + 40 * 2000)
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert np.flatnonzero(~writer.is_written(0)).tolist() == list(range(32, 50))
        write_missing(writer)
        writer.publish()
    assert (tmp_path / "cache.h5").read_bytes() == build(tmp_path / "whole.h5").read_bytes()


def test_nothing_is_published_while_rows_are_missing(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, range(50))
        write(writer, 1, range(49))
        with pytest.raises(
            IncompleteError, match=r"1 of 4 blocks .* the first is view 1, block 1 \(rows 32 to 49\)"
        ):
            writer.publish()
        assert not (tmp_path / "cache.h5").exists()
        write(writer, 1, range(49, 50))
        writer.publish()
    assert leftovers(tmp_path) == []


def test_nothing_is_published_that_does_not_read_back(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write_missing(writer)
        os.pwrite(writer._rows.fd, b"\x77", writer.layout.tables["labels"].offset + 33 * 8)
        with pytest.raises(StorageError, match=r"view 0, block 1 .* does not read back as written"):
            writer.publish()
        assert not (tmp_path / "cache.h5").exists()
        assert write_missing(writer) == 36, "block 1 of both views, whose labels they share"
        writer.publish()
    assert (tmp_path / "cache.h5").read_bytes() == build(tmp_path / "whole.h5").read_bytes()


def test_a_published_cache_is_never_written_again(tmp_path: Path) -> None:
    path = build(tmp_path / "cache.h5")
    with pytest.raises(CacheError, match="already published"):
        LogitCacheWriter(path, manifest())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("begin", [LogitCacheWriter, LogitCacheWriter.join], ids=["alone", "joint"])
def test_a_file_that_forked_workers_have_open_is_gone_on_with_once_it_is_closed(
    begin: Callable[..., LogitCacheWriter], tmp_path: Path
) -> None:
    """As after Ctrl-C in a notebook, whose traceback keeps them alive. Another file would take its room again."""
    with begin(tmp_path / "c.h5", manifest(100)) as writer:
        write(writer, 0, np.arange(32))
        worker = os.fork()
        if not worker:
            signal.pause()
    try:
        with begin(tmp_path / "c.h5", manifest(100)) as again:
            assert again.partial == writer.partial
            assert again.is_written(0).sum() == 32
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_a_closed_writer_writes_nothing(tmp_path: Path) -> None:
    writer = LogitCacheWriter(tmp_path / "cache.h5", manifest())
    writer.close()
    writer.close()
    victim = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)  # gets the number that the writer's file had
    with pytest.raises(StorageError):
        write(writer, 0, range(5))
    with pytest.raises(StorageError):
        writer.publish()
    assert os.fstat(victim).st_size == 0
    os.close(victim)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageError, match=r"cache\.h5: opening its partial file: (Not a directory|File exists)"
    ):
        LogitCacheWriter(tmp_path / "file" / "cache.h5", manifest())


def test_a_failed_sync_publishes_nothing_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, close = [], os.close

    def fail(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    def closes_and_fails(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, "Input/output error")

    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write_missing(writer)
        monkeypatch.setattr(os, "fsync", fail)
        monkeypatch.setattr(os, "close", closes_and_fails)
        with pytest.raises(StorageError, match="syncing; what was written cannot be trusted"):
            writer.publish()
        monkeypatch.undo()
        assert len(calls) == 1
    assert list(tmp_path.iterdir()) == [], "pages that are not known to be on the disk are not gone on with"


@pytest.mark.parametrize("take", [LogitCacheWriter, LogitCacheWriter.join])
def test_a_disk_that_fails_at_the_end_is_named_and_loses_nothing(
    take: Callable[..., LogitCacheWriter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network mount meets a quota when a file is closed. It is closed once: its number may be another's then."""
    real, failed = os.close, list[str]()

    def close(fd: int) -> None:
        failed.append(Path(os.readlink(f"/proc/self/fd/{fd}").removesuffix(" (deleted)")).suffix)
        real(fd)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    writer = take(tmp_path / "cache.h5", manifest())
    write(writer, 0, np.arange(50))
    write(writer, 1, np.arange(3))
    writer.sync()
    monkeypatch.setattr(os, "close", close)
    with pytest.raises(StorageError, match=r"\.partial: closing: .*; that is your quota: free some space"):
        writer.close()
    writer.close()
    monkeypatch.undo()
    assert failed == [".rows", ".synced", *([".joined"] if take == LogitCacheWriter.join else []), ".partial"]
    with take(tmp_path / "cache.h5", manifest()) as writer:
        assert writer.is_written(0).all()
        assert writer.is_written(1).sum() == 3
        write_missing(writer)
        assert holds_the_answers(LogitCache.open(writer.publish()))


def test_a_file_system_without_hard_links_publishes_by_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert holds_the_answers(LogitCache.open(build(tmp_path / "cache.h5")))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("limit", [10_000, 1_000_000])
def test_a_limit_on_file_sizes_is_met_before_a_row_is_computed(tmp_path: Path, limit: int) -> None:
    """By the header, and by the end of the file, which HDF5 makes as it closes it."""
    script = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
from decant.cache import LogitCacheWriter, Manifest, StorageError
free = [os.dup(0) for _ in range(9)]
for one in free:
    os.close(one)
try:
    LogitCacheWriter(sys.argv[1], Manifest.build(num_samples=20_000, num_outputs=100))
except StorageError as error:
    print(error)
    print("closed" if [os.dup(0) for _ in free] == free else "open")
"""
    said = finished(fork_python(script, tmp_path / "cache.h5", limit))
    assert "bytes: File too large; that is the limit of ulimit -f, or of the disk" in said
    assert list(tmp_path.iterdir()) == []
    assert said.split()[-1] == "closed", "or the space that it held would not be given back"


def test_a_limit_that_comes_while_writing_leaves_a_file_to_go_on_with(tmp_path: Path) -> None:
    script = """
import resource, sys
from decant.cache import LogitCacheWriter, StorageError
from tests.helpers.caches import manifest, write, write_missing
try:
    with LogitCacheWriter(sys.argv[1], manifest()) as writer:
        write(writer, 0, range(50))
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        write_missing(writer)
except StorageError as error:
    print(error)
"""
    assert "writing: File too large" in finished(fork_python(script, tmp_path / "cache.h5"))
    assert not (tmp_path / "cache.h5").exists()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert write_missing(writer) == 50
        writer.publish()
    assert (tmp_path / "cache.h5").read_bytes() == build(tmp_path / "whole.h5").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_found_before_a_row_is_computed(small_disk: Path) -> None:
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        LogitCacheWriter(small_disk / "cache.h5", manifest(200))
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_is_full_already_is_an_error_in_words(small_disk: Path) -> None:
    (small_disk / "junk").write_bytes(bytes(512 * 1024))
    script = """
import sys
from decant.cache import LogitCacheWriter, StorageError
from tests.helpers.caches import manifest
try:
    LogitCacheWriter(sys.argv[1], manifest())
except StorageError as error:
    print(error)
"""
    said = finished(fork_python(script, small_disk / "cache.h5"))
    assert "no space" in said.lower()
    assert leftovers(small_disk) == ["junk"]


def test_a_disk_that_others_fill_meanwhile_does_not_matter(small_disk: Path, tmp_path: Path) -> None:
    """The space is held from the start: the cache is finished on a disk without a free byte."""
    with LogitCacheWriter(small_disk / "cache.h5", manifest()) as writer:
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "junk").write_bytes(bytes(512 * 1024))
        write_missing(writer)
        writer.publish()
    assert (small_disk / "cache.h5").read_bytes() == build(tmp_path / "whole.h5").read_bytes()


def test_a_disk_that_fills_where_space_cannot_be_held_leaves_a_file_to_go_on_with(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with LogitCacheWriter(small_disk / "cache.h5", manifest()) as writer:
        (small_disk / "junk").write_bytes(bytes(300 * 1024))
        with pytest.raises(StorageError, match="writing: No space left on device; free some space"):
            write_missing(writer)
    with pytest.raises(StorageError, match=r"needs [\d,]+ bytes, [\d,]+ are free"):
        LogitCacheWriter(small_disk / "cache.h5", manifest())
    (small_disk / "junk").unlink()
    with LogitCacheWriter(small_disk / "cache.h5", manifest()) as writer:
        assert write_missing(writer) < 100
        writer.publish()
    assert (small_disk / "cache.h5").read_bytes() == build(tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("locking", ["TRUE", "FALSE", "BEST_EFFORT"])
def test_hdf5_file_locking_changes_nothing(tmp_path: Path, locking: str) -> None:
    script = """
import sys
from pathlib import Path
from decant.cache import LogitCache
from tests.helpers.caches import build, holds_the_answers
print(holds_the_answers(LogitCache.open(build(Path(sys.argv[1])))))
"""
    path = tmp_path / "cache.h5"
    assert finished(python(script, path, HDF5_USE_FILE_LOCKING=locking)) == "True\n"
    assert path.read_bytes() == build(tmp_path / "here.h5").read_bytes()


def test_leftover_drafts_go_when_the_cache_is_published(tmp_path: Path) -> None:
    path = tmp_path / "cache.h5"
    partial.new_name(path).with_suffix(partial.DRAFT).write_bytes(b"half a header")
    build(path)
    assert leftovers(tmp_path) == []


def test_a_label_of_another_view_does_not_slow_a_write_down_by_the_size_of_the_cache(tmp_path: Path) -> None:
    """What a write looks at is its own rows."""
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(100_000, 1, 40)) as writer:
        filled = writer._rows.filled

        class Counted(np.ndarray):
            looked_at = 0

            def __getitem__(self, key):  # type: ignore[no-untyped-def]
                found = super().__getitem__(key)
                Counted.looked_at += np.size(found)
                return found

        writer._rows.filled = filled.view(Counted)
        writer.write([5, 6], np.zeros((2, 1)), view=3)
        assert Counted.looked_at < 200_000, "a block's flags and the rows' own, not those of every view"
    assert answers(manifest(3, 2))["logits"].shape == (3, 2)


def test_labels_that_are_others_for_another_view_are_refused(tmp_path: Path) -> None:
    """Views share them: they would be written over, and no block of the first view would agree any more."""
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(10, 5)) as writer:
        writer.write([3], np.ones((1, 5)), labels=[2])
        with pytest.raises(
            ValueRefusedError, match="sample 3, view 1: already stored with other labels, for another view"
        ):
            writer.write([3], np.ones((1, 5)), labels=[1], view=1)
        writer.write([3], np.ones((1, 5)), labels=[2], view=1)
