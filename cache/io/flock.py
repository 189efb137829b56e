"""The lock of the system on an open file, which ends with the descriptors that hold it; where there is none, as on
Windows and on some network mounts, nobody is held off.
"""

from __future__ import annotations

import contextlib
import errno

try:
    import fcntl
except ImportError:  # not POSIX, as Windows
    fcntl = None  # type: ignore[assignment]

AVAILABLE = fcntl is not None
"""Whether this system has locks at all; where not, one process at a time may build, and nothing tells what is used."""

EXCLUSIVE, SHARED, FREE, AT_ONCE = (
    (0, 0, 0, 0) if fcntl is None else (fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB)
)


def flock(fd: int, operation: int) -> None:
    """Takes or frees the lock of an open file. Raises OSError, also where there are no locks.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     flock(file.fileno(), SHARED)
    """
    if fcntl is None:
        raise OSError(errno.ENOLCK, "this system has no file locks")
    fcntl.flock(fd, operation)


def try_flock(fd: int, kind: int) -> bool | None:
    """True where the lock is taken, False where another process has it, None where there are no locks.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
    ...     try_flock(first.fileno(), EXCLUSIVE), try_flock(second.fileno(), EXCLUSIVE)
    (True, False)
    """
    try:
        flock(fd, kind | AT_ONCE)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


def try_range(fd: int, place: int) -> bool | None:
    """Takes one byte of a file, which need not be there, for this process: a place in a list of work. True where it is
    taken, False where another process has it, None where there are no locks. It ends with `free_range`, with this
    process, or when this process closes any descriptor of the file.

    Threads of one process do not hold each other off.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     try_range(file.fileno(), 7), free_range(file.fileno(), 7)
    (True, None)
    """
    if fcntl is None:
        return None
    try:
        fcntl.lockf(fd, EXCLUSIVE | AT_ONCE, 1, place)
        return True
    except (BlockingIOError, PermissionError):  # the two errors that POSIX has for it
        return False
    except OSError:
        return None


def free_range(fd: int, place: int) -> None:
    """Ends what `try_range` began.

    >>> free_range(-1, 0)
    """
    if fcntl is not None:
        with contextlib.suppress(OSError, ValueError):
            fcntl.lockf(fd, FREE, 1, place)
