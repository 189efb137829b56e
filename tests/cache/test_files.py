"""The disk: room is made sure of beforehand, and what it refuses is said in words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from decant.cache import StorageError
from decant.cache.io.files import read_all, reserve, storage_error, sync_folder, write_all
from tests.helpers.processes import finished, python


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
    with pytest.raises(StorageError, match=r"file: .*free"):
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
    said = finished(python(script, tmp_path / "file"))
    assert said.startswith("1000 ")
    assert "File too large; free some space" in said
