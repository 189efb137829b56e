"""An unfinished file that several processes write at the same time, each other blocks: the ranks of a job, or parts of
a pass that start at any time on any machine.

Its name has `-joint-` in it. Every writer holds its lock together with the others (which also keeps NFS from writing
back more of a page than was changed), and has a small file beside it, `.joined`, as long as it may write. Whoever
publishes the file must be its only writer: it takes the lock for itself, and sees that no other process has left such a
file. Where neither is certain, as after the crash of a machine whose locks do not reach this one, the file is not
published but copied, so that nobody can change what is published.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decant.cache.errors import IncompleteError
from decant.cache.io import partial
from decant.cache.io.flock import EXCLUSIVE, FREE, SHARED, flock, try_flock
from decant.cache.io.opening import NotAFileError, create_new, has_one_name, open_write, read_file
from decant.cache.io.system import close_quietly, pwrite

_JOINT = "-joint-"
_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0
_MOST_BYTES = 4096


def new_joint_name(path: Path) -> Path:
    """A name for an unfinished file of `path` that others may join.

    >>> is_joint(new_joint_name(Path("digits.h5"))), is_joint(partial.new_name(Path("digits.h5")))
    (True, False)
    """
    return path.with_name(f"{path.name}.{partial.machine()}{_JOINT}{secrets.token_hex(4)}{partial.PARTIAL}")


def is_joint(unfinished: Path) -> bool:
    """Whether an unfinished file is one that several processes write.

    >>> is_joint(Path("digits.h5.host-joint-12345678.partial")), is_joint(Path("digits.h5.host-12345678.partial"))
    (True, False)
    """
    return re.search(rf"{_JOINT}[0-9a-f]{{8}}{re.escape(partial.PARTIAL)}$", unfinished.name) is not None


def join_one(path: Path) -> tuple[Path, int, bool] | None:
    """Joins the writers of an unfinished file of `path`: its name, a descriptor that shares its lock, and whether there
    is no other writer. None where there is no such file that this process may write. Waits while one is being
    published.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> print(join_one(path))
    None
    >>> new_joint_name(path).touch()
    >>> (first, one, alone), (second, two, alone_too) = join_one(path), join_one(path)
    >>> first == second, alone, alone_too
    (True, True, False)
    >>> os.close(one), os.close(two)
    (None, None)
    >>> folder.cleanup()
    """
    for found in partial.begun(path):
        if is_joint(found):
            with contextlib.suppress(PermissionError, FileNotFoundError, NotAFileError):
                fd = open_joint(found)
                while found.exists() and not path.exists():
                    alone = try_flock(fd, EXCLUSIVE) is True
                    if try_flock(fd, SHARED) is not False and has_one_name(fd) and found.exists():
                        return found, fd, alone
                    time.sleep(_POLL_SECONDS)
                os.close(fd)
    return None


def open_joint(unfinished: Path) -> int:
    """A descriptor to write an unfinished file, of which a publisher that was killed may have taken the permission.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     os.close(open_joint(Path(file.name)))
    """
    partial.make_writable(unfinished)
    return open_write(unfinished)


class Member:
    """This process among the writers of a joint file, as its `.joined` file says it; that is removed at the end.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> unfinished = new_joint_name(Path(folder.name, "digits.h5"))
    >>> member = Member(unfinished)
    >>> [(found.process == os.getpid(), found.rows) for found in members(unfinished)]
    [(True, 0)]
    >>> member.add(100, every=0.0)
    >>> [found.rows for found in members(unfinished)]
    [100]
    >>> member.close()
    >>> members(unfinished)
    []
    >>> folder.cleanup()
    """

    def __init__(self, unfinished: Path) -> None:
        name = f"{unfinished.name}.{partial.machine()}_{secrets.token_hex(4)}{partial.JOINED}"
        self._path = unfinished.with_name(name)
        self._fd = create_new(self._path)
        try_flock(self._fd, EXCLUSIVE)
        self._rows, self._said = 0, time.monotonic()
        self._write()

    def add(self, rows: int, every: float = 2.0) -> None:
        """Counts rows that this process has written, for who looks at it; writes the number at most so often."""
        self._rows += rows
        if time.monotonic() - self._said >= every:
            self._said = time.monotonic()
            self._write()

    def close(self) -> None:
        """From now on this process writes nothing into the file."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            close_quietly(self._fd)
            self._fd = -1

    def _write(self) -> None:
        said = json.dumps({"process": os.getpid(), "rank": _rank(), "rows": self._rows})
        with contextlib.suppress(OSError):  # a full disk: nothing rests on it
            pwrite(self._fd, said.ljust(100).encode(), 0)


class Found(NamedTuple):
    """A process that may write into a joint file."""

    machine: str
    process: int | None
    rank: int | None
    """Its rank in a job, if it is of one."""
    rows: int
    """That it has written."""
    living: bool | None
    """Whether it is known to live; None where that cannot be told from here."""


def members(unfinished: Path) -> list[Found]:
    """The processes that may write into a joint file.

    >>> members(Path("digits.h5.host-joint-12345678.partial"))
    []
    """
    found = []
    for path in _files(unfinished):
        machine = _machine_of(path)
        said = _said(path)
        process, rank, rows = (_integer(said.get(name)) for name in ("process", "rank", "rows"))
        found.append(Found(machine, process, rank, rows or 0, _lives(path)))
    return found


def become_the_only_writer(fd: int, unfinished: Path, path: Path) -> bool:
    """Takes the lock of a joint file, of which this process has given up its part, for itself alone, to publish it.

    Waits while another process publishes it. False where it is not certain that nobody else writes. Raises
    IncompleteError where another process still writes, and so publishes it later; FileExistsError where `path` has been
    published in the meantime.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> unfinished = new_joint_name(path)
    >>> with unfinished.open("wb") as file:
    ...     become_the_only_writer(file.fileno(), unfinished, path)
    ...     unfinished.with_name(f"{unfinished.name}.elsewhere_12345678{partial.JOINED}").touch()
    ...     become_the_only_writer(file.fileno(), unfinished, path)  # a machine of which nothing is known
    True
    False
    >>> folder.cleanup()
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while try_flock(fd, EXCLUSIVE) is False:
        if path.exists():
            raise FileExistsError(path)
        if try_flock(fd, SHARED) is True:  # so the other is not publishing, it may be writing
            with contextlib.suppress(OSError):
                flock(fd, FREE)
            if time.monotonic() > until:
                raise IncompleteError(
                    f"{unfinished}: all blocks are written, and another process still has the file open; the last "
                    "one publishes it"
                )
        time.sleep(_POLL_SECONDS)
    if path.exists():
        raise FileExistsError(path)
    for other in _files(unfinished):
        if _is_of_this_machine(other):
            _remove_dead(other)
    return not _files(unfinished)


def _files(unfinished: Path) -> list[Path]:
    return [found for found in partial.logs_of(unfinished) if found.name.endswith(partial.JOINED)]


def _is_of_this_machine(member: Path) -> bool:
    return partial.is_of_this_machine(_machine_of(member), member.parent)


def _machine_of(member: Path) -> str:
    """The machine whose process a `.joined` file is of."""
    return member.name.removesuffix(partial.JOINED).rpartition(".")[2].rpartition("_")[0]


def _lives(member: Path) -> bool | None:
    """Whether the process that a `.joined` file is of lives; None where it cannot be told."""
    with contextlib.suppress(OSError), _opened(member) as fd:
        free = try_flock(fd, SHARED)
        if free is False:
            return True
        if _is_of_this_machine(member):
            return free is None and _may_run(_said(member).get("process"))
    return None


def _may_run(process: object) -> bool:
    """Whether a process of this machine may be there, where there are no locks to tell."""
    try:
        os.kill(_integer(process) or os.getpid(), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another person's
    return True


def _said(member: Path) -> dict[str, object]:
    """What a process has written into its file."""
    with contextlib.suppress(OSError, ValueError):
        read = json.loads(read_file(member, follow=False, most=_MOST_BYTES))
        return read if isinstance(read, dict) else {}
    return {}


def _remove_dead(member: Path) -> None:
    if _lives(member) is False:
        with contextlib.suppress(OSError):
            member.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_write(path)
    try:
        yield fd
    finally:
        os.close(fd)


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _rank() -> int | None:
    """The rank that a launcher gave this process."""
    given = os.environ.get("RANK", "")
    return int(given) if given.isdecimal() and "WORLD_SIZE" in os.environ else None
