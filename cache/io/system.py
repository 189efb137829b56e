"""What only POSIX systems have, and what stands in for it elsewhere, as on Windows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

CLOEXEC: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags of every file that is opened by `os.open`: no child process keeps it, and its bytes are taken as they are."""

_seeking = threading.Lock()
_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE
_OF_ONE_MACHINE = {
    0xEF53,  # ext2 to ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xCA451A4E,  # bcachefs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x01021994,  # tmpfs
    0x794C7630,  # overlayfs, as in containers
}
"""Kinds of file systems, as `statfs` has them."""


def pread(fd: int, count: int, offset: int) -> bytes:
    """At most `count` bytes from byte `offset` of an open file on.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     pwrite(file.fileno(), b"rows", 1), pread(file.fileno(), 9, 2)
    (4, b'ows')
    """
    if hasattr(os, "pread"):
        return os.pread(fd, count, offset)
    with _at(fd, offset):
        return os.read(fd, count)


def pwrite(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Writes at byte `offset` of an open file; returns how many bytes were written, which may be fewer.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     pwrite(file.fileno(), b"rows", 0)
    4
    """
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    with _at(fd, offset):
        return os.write(fd, data)


def start_writing_out(fd: int) -> None:
    """Starts to write to the disk what an open file has in memory, and does not wait: a later sync takes less time.
    Errors are left to that sync. Does nothing where the system has no such call.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     start_writing_out(file.fileno())
    """
    if sys.platform == "linux" and sys.maxsize > 1 << 32:
        start = getattr(ctypes.CDLL(None), "sync_file_range", None)
        if start is not None:
            start(fd, ctypes.c_int64(0), ctypes.c_int64(0), _START_WRITING)


@contextlib.contextmanager
def _at(fd: int, offset: int) -> Iterator[None]:
    """Moves to byte `offset` of an open file, and back at the end: a file object may have a position in it."""
    with _seeking:
        before = os.lseek(fd, 0, os.SEEK_CUR)
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            yield
        finally:
            os.lseek(fd, before, os.SEEK_SET)


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fills `buffer` from byte `offset` of an open file on; returns how many bytes were read, which may be fewer.

    >>> import tempfile
    >>> buffer = bytearray(3)
    >>> with tempfile.TemporaryFile() as file:
    ...     pwrite(file.fileno(), b"rows", 0), read_into(file.fileno(), memoryview(buffer), 1), buffer
    (4, 3, bytearray(b'ows'))
    """
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], offset)
    part = pread(fd, len(buffer), offset)
    buffer[: len(part)] = part
    return len(part)


def protect(fd: int) -> None:
    """Takes from everybody the right to write an open file again; does nothing where the system has no such rights, or
    the file is another person's.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     protect(file.fileno())
    ...     stat.filemode(os.fstat(file.fileno()).st_mode)
    '-r--------'
    """
    if hasattr(os, "fchmod"):  # which Windows has since Python 3.13
        with contextlib.suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(os.fstat(fd).st_mode) & ~0o222)


def close_quietly(fd: int) -> None:
    """Closes an open file. What its disk says only then, as network mounts and quotas do of what was written before, is
    left out: for files of which nothing is lost so, and that were synced.

    >>> close_quietly(os.open(os.devnull, os.O_RDONLY))
    """
    with contextlib.suppress(OSError):
        os.close(fd)


def forget_read(fd: int) -> None:
    """Has an open file be read from its disk again, and not from memory, where the system can be asked to: what could
    not be written is in memory still.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     forget_read(file.fileno())
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def allocated_bytes(status: os.stat_result) -> int:
    """The bytes that a file takes on its disk; where that is not known, its size.

    >>> allocated_bytes(os.stat(os.devnull))
    0
    """
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else int(blocks) * 512


def is_of_one_machine(folder: Path) -> bool:
    """Whether no other machine can have this folder, and locks in it hold off whoever may write there, as its kind of
    file system says; False where that is not known, as of network mounts and of FUSE.

    >>> is_of_one_machine(Path("no/such/folder"))
    False
    """
    if sys.platform != "linux" or sys.maxsize <= 1 << 32:
        return False
    found = ctypes.create_string_buffer(256)  # for `struct statfs`, of 120 bytes: the first 8 are the kind
    failed = ctypes.CDLL(None).statfs(os.fsencode(folder), found)
    return not failed and int.from_bytes(found.raw[:8], sys.byteorder) in _OF_ONE_MACHINE


def boot_id() -> str:
    """Eight digits that no other machine has, also one that is a copy of this one, until this one is started anew; ""
    where the system has none.

    >>> len(boot_id()) in (0, 8)
    True
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # not Linux
        return ""


def process_space() -> str:
    """Where the number of a process names that process alone: this machine and, of its containers, this one; "" where
    that is not known.

    >>> process_space() == process_space()
    True
    """
    try:
        return f"{boot_id()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return ""


def available_memory() -> int:
    """Bytes of memory that can be used without swapping.

    >>> available_memory() > 0
    True
    """
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
