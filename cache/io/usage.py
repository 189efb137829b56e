"""Who uses a published cache: a count for people, and a shared lock that keeps it from being collected."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from decant.cache.io.files import lock_path, open_lock


@contextlib.contextmanager
def using(path: Path) -> Iterator[None]:
    """Marks the cache as in use until the end, and counts one use; on a store that cannot be written it does
    nothing.
    """
    fd = -1
    with contextlib.suppress(OSError), open(_log(path), "a", encoding="utf-8") as file:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(f"{now} {socket.gethostname()} {os.getpid()}\n")
    with contextlib.suppress(OSError):
        fd = open_lock(lock_path(path))
        fcntl.flock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def count(path: Path) -> int:
    """How often the cache has been used."""
    try:
        return _log(path).read_bytes().count(b"\n")
    except OSError:
        return 0


def last(path: Path) -> float:
    """When it was last used, or else published: seconds since the epoch."""
    try:
        return max(_log(path).stat().st_mtime, path.stat().st_mtime)
    except OSError:
        return path.stat().st_mtime


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether nobody uses the cache; nobody can begin to until the end."""
    try:
        fd = open_lock(lock_path(path))
    except OSError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except OSError:
        yield False
    finally:
        os.close(fd)


def forget(path: Path) -> None:
    """Removes the count of a cache that is gone. Its lock file stays: removing a lock is not safe."""
    _log(path).unlink(missing_ok=True)


def _log(path: Path) -> Path:
    return path.with_name(path.name + ".uses")
