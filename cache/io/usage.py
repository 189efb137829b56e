"""Who uses a published file: a count for people, and a shared lock that keeps the file from being removed."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from decant.cache.io.locks import lock_path, shared, try_exclusive
from decant.cache.io.opening import open_append, read_file

_MOST_BYTES = 64 << 20  # of a log of uses: a million of them
_HERE: list[Path] = []
"""What this process is using."""


@contextlib.contextmanager
def using(path: Path, *, counted: bool = True) -> Iterator[None]:
    """Marks the file as in use until the end, and counts one use; on a store that cannot be written it does nothing.

    counted: False where another process of the same job counts it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> with using(path), unused(path) as free:
    ...     count(path), free
    (1, False)
    >>> folder.cleanup()
    """
    path = _real(path)
    if counted:
        _count(path)
    _HERE.append(path)
    try:
        with shared(lock_path(path)):
            yield
    finally:
        _HERE.remove(path)


def note(path: Path) -> None:
    """Counts a use by a loop that `using` does not surround, as one of one's own.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> with using(path):
    ...     note(path)
    >>> count(path)
    1
    >>> note(path)
    >>> count(path)
    2
    >>> folder.cleanup()
    """
    path = _real(path)
    if path not in _HERE:
        _count(path)


def _count(path: Path) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with contextlib.suppress(OSError), open_append(_log(path)) as file:
        file.write(f"{now} {socket.gethostname()} {os.getpid()}\n".encode())


def unused(path: Path) -> AbstractContextManager[bool]:
    """Whether nobody uses the file; nobody can begin to until the end.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with unused(Path(folder.name, "digits.h5")) as free:
    ...     free
    True
    >>> folder.cleanup()
    """
    return try_exclusive(lock_path(_real(path)))


def count(path: Path) -> int:
    """How often the file has been used.

    >>> count(Path("no/such/file.h5"))
    0
    """
    try:
        return read_file(_log(path), follow=False, most=_MOST_BYTES).count(b"\n")
    except OSError:
        return 0


def last(path: Path) -> float:
    """When it was last used, or else published: seconds since the epoch.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     last(Path(file.name)) == os.stat(file.name).st_mtime
    True
    """
    try:
        return max(_log(path).lstat().st_mtime, path.stat().st_mtime)
    except OSError:
        return path.stat().st_mtime


def forget(path: Path) -> None:
    """Removes the count of a file that is gone. Its lock file stays: removing a lock is not safe.

    >>> forget(Path("no/such/file.h5"))
    """
    _log(path).unlink(missing_ok=True)


def hand_on(path: Path, renamed: Path) -> None:
    """Has the uses of a file go on under another name that it got.

    >>> hand_on(Path("no/such/file.h5.fetching"), Path("no/such/file.h5"))
    """
    with contextlib.suppress(OSError):
        os.replace(_log(path), _log(renamed))


def _log(path: Path) -> Path:
    path = _real(path)
    return path.with_name(path.name + ".uses")


def _real(path: Path) -> Path:
    """The file that a link leads to: who removes it there sees the uses and the lock beside it, and no link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
