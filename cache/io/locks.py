"""Locks between processes: one protocol over flock, for what is built, used and removed.

A lock is a file beside what it protects, held through an open descriptor. It ends with the process that holds it, also
when that is killed. It is let go of explicitly, and not by closing the descriptor alone: forked workers have that
descriptor open too, and would keep the lock. Its file may be removed by whoever holds it exclusively: who has waited
for it sees that, and makes another.

Some file systems have no locks, nor has Windows, and on some they do not reach from one machine to the next. There
nobody is held off. So a lock spares work, and keeps a file in use from being removed; that a published file is whole
never rests on one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from decant.cache.io.files import storage_error
from decant.cache.io.flock import AT_ONCE, EXCLUSIVE, FREE, SHARED, flock, try_flock
from decant.cache.io.opening import has_one_name, is_named, open_lock
from decant.cache.io.system import close_quietly, pread, pwrite

_POLL_SECONDS = 0.2
_MOST_TRIES = 20
"""That are worth it where a lock is removed again and again, or a file system gives a file another number each time."""


def lock_path(path: Path) -> Path:
    """The lock of the file at `path`: held exclusively to build or remove it, shared to use it.

    >>> str(lock_path(Path("caches/digits.h5")))
    'caches/digits.h5.lock'
    """
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def exclusive(lock: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Holds `lock` exclusively until the end; waits for the process that holds it.

    Before it waits, it calls `waiting` once with the holder, as "process 4711 on gpu01". A `waiting` that raises
    refuses instead of waiting. Without locks in the file system it goes on at once. Raises StorageError where the lock
    cannot be opened, or waiting for it fails, and RuntimeError where this process is being started by another that may
    be the holder, and would wait for ever.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> lock = lock_path(Path(folder.name, "digits.h5"))
    >>> def refuse(holder):
    ...     raise RuntimeError("somebody else builds it")
    >>> with exclusive(lock, waiting=print), exclusive(lock, waiting=refuse):
    ...     print("builds")
    Traceback (most recent call last):
        ...
    RuntimeError: somebody else builds it
    >>> with exclusive(lock, waiting=refuse):
    ...     print("builds")
    builds
    >>> folder.cleanup()
    """
    fd = _taken(lock, waiting)
    for _ in range(_MOST_TRIES):
        if _is_still_named(fd, lock):
            break
        _release(fd)  # removed while it was waited for: whoever comes next would not be held off by it
        fd = _taken(lock, lambda holder: None)
    try:
        with contextlib.suppress(OSError):  # the name is for who waits; the lock holds without it
            if has_one_name(fd):  # and what has another name too is not changed
                os.ftruncate(fd, 0)
                pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        _release(fd)


@contextlib.contextmanager
def try_exclusive(lock: Path) -> Iterator[bool]:
    """Whether nobody holds `lock`; where so, nobody else gets it until the end. Never waits.

    False also where the lock cannot be opened, or the file system has none.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> lock = Path(folder.name, "digits.h5.lock")
    >>> with shared(lock), try_exclusive(lock) as free:
    ...     free
    False
    >>> with try_exclusive(lock) as free:
    ...     free
    True
    >>> folder.cleanup()
    """
    try:
        fd = open_lock(lock)
    except OSError:
        yield False
        return
    try:
        yield try_flock(fd, EXCLUSIVE) is True and is_named(fd, lock)
    finally:
        _release(fd)


def are_known(lock: Path) -> bool:
    """Whether locks tell who holds this one; False where the file system has none, or it cannot be opened.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     are_known(Path(file.name))
    True
    """
    try:
        fd = open_lock(lock)
    except OSError:
        return False
    try:
        return try_flock(fd, SHARED) is not None
    finally:
        _release(fd)


@contextlib.contextmanager
def shared(lock: Path) -> Iterator[None]:
    """Holds `lock` together with others who share it until the end; waits while somebody holds it exclusively.

    Does nothing where the lock cannot be opened, as on a store that may only be read, or the file system has none.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> lock = Path(folder.name, "digits.h5.lock")
    >>> with shared(lock), shared(lock):
    ...     print("both read")
    both read
    >>> folder.cleanup()
    """
    fd = -1
    with contextlib.suppress(OSError):
        fd = open_lock(lock)
        flock(fd, SHARED)
        for _ in range(_MOST_TRIES):
            if is_named(fd, lock):
                break
            _release(fd)  # removed while it was waited for
            fd = -1
            fd = open_lock(lock)
            flock(fd, SHARED)
    try:
        yield
    finally:
        if fd >= 0:
            _release(fd)


def holder(lock: Path) -> str | None:
    """The process that holds `lock` exclusively, as it named itself in it; None where none is known to. Makes no lock.

    It tries the lock only where the process named in it may live: held even for a moment, the lock would turn away
    somebody who begins just then.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> lock = Path(folder.name, "digits.h5.lock")
    >>> with exclusive(lock, waiting=print):
    ...     holder(lock) == f"process {os.getpid()} on {socket.gethostname()}"
    True
    >>> print(holder(lock))
    None
    >>> folder.cleanup()
    """
    try:
        fd = open_lock(lock, create=False)
    except OSError:
        return None
    try:
        named = _name_in(fd)
        return named if may_live(named) and try_flock(fd, SHARED) is False else None
    except OSError:
        return None
    finally:
        os.close(fd)


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Lets one process after the other make a file in a folder; where a folder cannot be locked, all go on at once.

    >>> with in_turn(Path(".")):
    ...     print("makes a file")
    makes a file
    """
    fd = -1
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        while try_flock(fd, EXCLUSIVE) is False:
            time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if fd >= 0:
            _release(fd)


# An unfinished file is its own lock: its writers share it, so that the ranks of one job can join each other.


def claim(fd: int) -> bool:
    """Takes an open unfinished file for this process, and for those that `join` it; False where another process has it
    or the file system has no locks. It ends with `give_up`, or when every descriptor of the file is closed, those of
    forked processes too.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     claim(file.fileno())
    True
    """
    return try_flock(fd, EXCLUSIVE) is True and join(fd)


def join(fd: int) -> bool:
    """Joins the process that has claimed an open unfinished file; whether that went well.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
    ...     claim(first.fileno()), claim(second.fileno()), join(second.fileno())
    (True, False, True)
    """
    return try_flock(fd, SHARED) is True


def give_up(fd: int) -> None:
    """Ends this process's part in an open unfinished file; closing is not enough where forked workers have it open too.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
    ...     claim(first.fileno()), give_up(first.fileno()), claim(second.fileno())
    (True, None, True)
    """
    with contextlib.suppress(OSError):
        flock(fd, FREE)


def in_use(fd: int) -> bool:
    """Whether a living process is known to have claimed an open unfinished file; False also where nobody can tell.

    Where it is False, nobody else can claim the file until `fd` is closed.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as first, open(first.name) as second:
    ...     claim(first.fileno()), in_use(second.fileno())
    (True, True)
    """
    return try_flock(fd, EXCLUSIVE) is False


def _require_started(lock: Path) -> None:
    """Raises RuntimeError in a process that is being started anew and still imports the script of the one that starts
    it, which waits for it: PyTorch's workers under the start methods spawn and forkserver. One that gets its dataset
    next may wait, as for a worker beside it that opens the same.
    """
    from multiprocessing import process  # which most runs do not need

    script = sys.modules.get("__mp_main__")  # becomes __main__ once it has run
    runs_script = script is not None and script is not sys.modules.get("__main__")
    if runs_script and getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            f"{lock}: is held by the process that starts this one, which runs your script from its beginning: put what "
            'the script does under if __name__ == "__main__":'
        )


def _taken(lock: Path, waiting: Callable[[str], None]) -> int:
    """A descriptor of the lock, held exclusively, once nobody else holds it."""
    try:
        fd = open_lock(lock)
    except OSError as error:
        raise storage_error(error, lock, "opening the lock") from error
    try:
        if try_flock(fd, EXCLUSIVE) is False:
            _require_started(lock)
            waiting("".join(filter(str.isprintable, _name_in(fd))) or "another process")
            _wait(fd, lock)
    except BaseException:
        _release(fd)
        raise
    return fd


def _is_still_named(fd: int, lock: Path) -> bool:
    """Whether a lock that is held is the one that the next process finds. Lets go of it and raises StorageError where
    the disk does not tell.
    """
    try:
        return is_named(fd, lock)
    except OSError as error:
        _release(fd)
        raise storage_error(error, lock, "opening the lock") from error


def _wait(fd: int, lock: Path) -> None:
    while True:
        try:
            flock(fd, EXCLUSIVE | AT_ONCE)
            return
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise storage_error(error, lock, "waiting for the lock") from error


def _release(fd: int) -> None:
    with contextlib.suppress(OSError):
        flock(fd, FREE)  # closing is not enough: forked workers have it open too
    close_quietly(fd)


def _name_in(fd: int) -> str:
    return pread(fd, 200, 0).decode(errors="replace")


def may_live(named: str) -> bool:
    """Whether "process PID on HOST" may still be there; of another machine nobody knows.

    >>> may_live(f"process {os.getpid()} on {socket.gethostname()}"), may_live("process 1 on elsewhere"), may_live("")
    (True, True, False)
    """
    _, pid, _, host = (named.split(maxsplit=3) + [""] * 4)[:4]
    if host != socket.gethostname() or not pid.isdecimal():
        return bool(named)
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another person's process, or no process id at all
    return True
