"""Files are replaced whole or not at all; room is made sure of beforehand, and what a disk refuses is said in words."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from decant.cache import StorageError
from decant.cache.io import drafts
from decant.cache.io.drafts import create_draft, remove_dead_drafts
from decant.cache.io.files import (
    read_all,
    replacing,
    reserve,
    storage_error,
    sync_folder,
    write_all,
    write_atomically,
)
from decant.cache.io.flock import try_flock
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, finished, wait_until
from tests.helpers.weak_locks import weaken


@pytest.fixture
def opened(tmp_path: Path):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd, tmp_path / "file"
    os.close(fd)


def test_reserved_space_is_really_held(opened: tuple[int, Path]) -> None:
    fd, path = opened
    reserve(fd, 1_000_000, path)
    assert os.fstat(fd).st_blocks * 512 >= 1_000_000
    assert os.fstat(fd).st_size == 1_000_000


def test_reserving_again_keeps_what_is_there(opened: tuple[int, Path]) -> None:
    fd, path = opened
    write_all(fd, b"rows", 100, path)
    reserve(fd, 1_000_000, path)
    assert read_all(fd, 6, 99, path) == b"\0rows\0"


def test_more_than_the_disk_has_is_refused(opened: tuple[int, Path]) -> None:
    fd, path = opened
    with pytest.raises(
        StorageError, match=r"file: .*(free|File too large)"
    ):  # of the disk, or of any file on it
        reserve(fd, 1 << 50, path)


def test_where_the_system_cannot_reserve_the_free_space_is_compared(
    opened: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, path = opened
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    reserve(fd, 1_000_000, path)
    with pytest.raises(StorageError, match=r"needs 1,125,899,906,842,624 bytes, [\d,]+ are free"):
        reserve(fd, 1 << 50, path)


def test_reading_ends_at_the_end_of_the_file(opened: tuple[int, Path]) -> None:
    fd, path = opened
    write_all(fd, b"abc", 0, path)
    assert read_all(fd, 10, 1, path) == b"bc"


def test_a_refused_read_or_write_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="name: writing: Bad file descriptor"):
        write_all(-1, b"x", 0, Path("name"))
    with pytest.raises(StorageError, match="name: reading: Bad file descriptor"):
        read_all(-1, 1, 0, Path("name"))
    with pytest.raises(StorageError, match="syncing the folder: No such file"):
        sync_folder(tmp_path / "none")


def test_a_full_disk_says_what_to_do() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "run the same command again" in str(storage_error(full, Path("name"), "writing"))


def test_a_write_that_the_system_cuts_short_is_finished(tmp_path: Path) -> None:
    """With a limit in its way the system writes a part first, and refuses the rest only when asked again."""
    script = """
import os, resource, sys
from pathlib import Path
from decant.cache import StorageError
from decant.cache.io.files import write_all
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
try:
    write_all(fd, bytes(3000), 0, Path(sys.argv[1]))
except StorageError as error:
    print(os.fstat(fd).st_size, error)
"""
    said = finished(fork_python(script, tmp_path / "file"))
    assert said.startswith("1000 ")
    assert "File too large; that is the limit of ulimit -f" in said


# Files that are replaced


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "digits" / "a.bin"
    for content in (b"first", b"", bytes(range(256)) * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.bin"], "folders are made, drafts are not left"


def test_whoever_reads_meanwhile_reads_the_content_before_to_its_end(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"before")
    with open(tmp_path / "a.bin", "rb") as reader:
        write_atomically(tmp_path / "a.bin", b"after it")
        assert reader.read() == b"before"
    assert (tmp_path / "a.bin").read_bytes() == b"after it"


def test_a_draft_that_is_not_finished_leaves_the_file_before_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"before")

    def fail() -> None:
        with replacing(tmp_path / "a.bin") as draft:
            draft.write(b"half of wh")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "a.bin").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_what_cannot_be_replaced_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory") as caught:
        write_atomically(tmp_path, b"")
    assert str(caught.value).count(str(tmp_path)) == 1, caught.value


def test_two_drafts_of_one_file_are_not_in_each_others_way(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.bin") as first, replacing(tmp_path / "a.bin") as second:
        first.write(b"first")
        second.write(b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"first", "the last one that was finished"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_draft_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, replace = list[int](), os.replace

    def named(*names: Path) -> None:
        assert synced == [7], "all of it, before it has its name"
        replace(*names)

    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    monkeypatch.setattr(os, "replace", named)
    write_atomically(tmp_path / "a.bin", b"content")
    assert (tmp_path / "a.bin").read_bytes() == b"content"


def test_a_reader_sees_one_whole_content_or_the_other_and_so_it_stays_after_a_kill(tmp_path: Path) -> None:
    path, length = tmp_path / "a.bin", 300_000
    script = (
        "import sys, pathlib\n"
        "from decant.cache.io.files import write_atomically\n"
        "path = pathlib.Path(sys.argv[1])\n"
        f"while True:\n    for content in (b'a', b'b'): write_atomically(path, content * {length})\n"
    )
    writer = fork_python(script, path)
    try:
        wait_until(path.exists, writer)
        for _ in range(200):
            content = path.read_bytes()
            assert content in (b"a" * length, b"b" * length), f"{len(content):,} bytes, {set(content)}"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    assert path.read_bytes() in (b"a" * length, b"b" * length)


# Drafts of the dead


def test_the_draft_of_a_killed_writer_is_gone_when_the_file_is_written_next(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    script = """
import os, signal, sys
from pathlib import Path
from decant.cache.io.files import replacing
with replacing(Path(sys.argv[1])) as draft:
    draft.write(b"half")
    draft.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    fork_python(script, path).communicate(timeout=PATIENCE)
    (left,) = tmp_path.iterdir()
    other = tmp_path / f"other-{left.name}"
    other.write_bytes(b"of another name")
    write_atomically(path, b"whole")
    assert {found.name for found in tmp_path.iterdir()} == {path.name, other.name}
    assert path.read_bytes() == b"whole"


def test_a_draft_that_is_written_just_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with replacing(path) as draft:
        draft.write(b"later")
        write_atomically(path, b"sooner")
        assert path.read_bytes() == b"sooner"
    assert path.read_bytes() == b"later"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_system_that_takes_no_byte_is_not_asked_for_ever(
    opened: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, path = opened
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(StorageError, match="writing: the system has taken none of it"):
        write_all(fd, b"rows", 0, path)


def test_a_draft_that_has_its_other_name_already_loses_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    draft, fd = create_draft(path)
    os.close(fd)
    os.link(draft, path)
    path.chmod(0o444)
    remove_dead_drafts(path)
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_draft_that_was_taken_for_a_dead_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who writes the same file, before its maker has locked it."""
    removed = list[Path]()

    def removed_first(fd: int, kind: int) -> bool | None:
        if not removed:
            removed.extend(tmp_path.iterdir())
            removed[0].unlink()
        return try_flock(fd, kind)

    monkeypatch.setattr(drafts, "try_flock", removed_first)
    draft, fd = create_draft(tmp_path / "file")
    assert draft.exists()
    assert [draft] != removed
    os.close(fd)


def test_drafts_stay_where_no_lock_tells_whether_somebody_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft, fd = create_draft(tmp_path / "file")
    weaken("no locks", monkeypatch)
    remove_dead_drafts(tmp_path / "file")
    assert draft.exists()
    os.close(fd)


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user, so root")
def test_the_drafts_of_another_person_stay(tmp_path: Path) -> None:
    draft, fd = create_draft(tmp_path / "file")
    os.close(fd)
    os.chown(draft, 65534, -1)
    remove_dead_drafts(tmp_path / "file")
    assert draft.exists()


def test_space_that_the_file_has_already_need_not_be_free(
    opened: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, path = opened
    reserve(fd, 1_000_000, path)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    reserve(fd, 1_000_000, path)
    with pytest.raises(StorageError, match="0 are free"):
        reserve(fd, 3_000_000, path)
