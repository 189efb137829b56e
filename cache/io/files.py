"""What the operating system is asked for: reserved space, durable names, one holder at a time."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from decant.cache.errors import StorageError


def reserve(fd: int, size: int, path: Path) -> None:
    """Makes sure that all `size` bytes of the file can be written, before any work is spent on them.

    Raises StorageError when the disk lacks the room. Where the system cannot reserve (macOS, some network
    mounts), the free space is compared instead.
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
            return
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise storage_error(error, path, f"reserving {size:,} bytes") from error
    held = os.fstat(fd).st_blocks * 512
    free = shutil.disk_usage(path.parent).free
    if size - held > free:
        raise StorageError(
            f"{path}: needs {size:,} bytes, {free:,} are free on its disk; free some and run it again"
        )


def write_all(fd: int, data: bytes | memoryview, offset: int, path: Path) -> None:
    """`os.pwrite` until every byte is written. Raises StorageError on a full disk or a failed write."""
    view = memoryview(data).cast("B")
    while view:
        try:
            done = os.pwrite(fd, view, offset)
        except OSError as error:
            raise storage_error(error, path, "writing") from error
        view, offset = view[done:], offset + done


def read_all(fd: int, count: int, offset: int, path: Path) -> bytes:
    """`count` bytes from `offset` on, fewer only at the end of the file. Raises StorageError on a failed
    read.
    """
    parts = []
    while count:
        try:
            part = os.pread(fd, count, offset)
        except OSError as error:
            raise storage_error(error, path, "reading") from error
        if not part:
            break
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


def lock_path(path: Path) -> Path:
    """The lock of the cache at `path`: held alone to build or remove it, together to use it."""
    return path.with_name(path.name + ".lock")


def open_lock(lock: Path) -> int:
    """A descriptor to lock with; the file is made if need be."""
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return os.open(lock, os.O_RDONLY | os.O_CLOEXEC)  # another person's; reading is enough to lock it


def sync_folder(folder: Path) -> None:
    """Makes a name in `folder` durable. Raises StorageError where that fails."""
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has nothing to sync
            raise storage_error(error, folder, "syncing the folder") from error


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """A disk's refusal in words, with what to do about it."""
    why = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        why += "; free some space and run the same command again, it goes on from here"
    return StorageError(f"{path}: {doing}: {why}")
