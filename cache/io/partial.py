"""The unfinished file of a cache: its name, who may write into it, and how it is published.

While `PATH` is built, its rows are in `PATH.MACHINE-TOKEN.partial`. (Files that several processes write together have a
protocol of their own, `decant.cache.io.joint`.) Two builders of one cache must never write into one
file, also where locks do not exist or do not reach from one machine to the next. So an unfinished file has one builder:
the process that holds its lock on the machine that began it. Any other builder only reads it, and copies its sound
blocks into a file of its own. No two files ever have the same name, so nobody can publish the file of another builder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import uuid
from functools import cache
from pathlib import Path

from decant.cache.errors import StorageError
from decant.cache.io.drafts import DRAFT
from decant.cache.io.files import storage_error
from decant.cache.io.locks import claim
from decant.cache.io.opening import NotAFileError, has_one_name, is_ours, kind, open_read, open_write
from decant.cache.io.system import boot_id, is_of_one_machine

PARTIAL = ".partial"
"""Ends the name of an unfinished file."""

MARKS = ".rows"
"""Ends the name of a file beside an unfinished one that says which of its rows are written."""

SYNCED = ".synced"
"""Ends the name of a file beside an unfinished one that says which of its blocks are on the disk."""

JOINED = ".joined"
"""Ends the name of a file beside an unfinished one that a process has there as long as it may write into it together
with others.
"""

_MACHINE = re.compile(r"(-joint)?-[0-9a-f]{8}\.partial$")
"""Follows the machine in the name of an unfinished file."""
_BOOT = re.compile(r"_[0-9a-f]{8}$")
"""Ends a machine's name, where it has such a number."""

_LOG = rf"\.\w+({re.escape(MARKS)}|{re.escape(SYNCED)}|{re.escape(JOINED)})"

NO_HARD_LINKS = (
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EACCES,
    errno.EXDEV,
    errno.EINVAL,
)
"""What a file system says that has no second names."""


def new_name(path: Path) -> Path:
    """A name for an unfinished file of `path` that no other has had or will have.

    >>> new_name(Path("digits.h5")).name.startswith(f"digits.h5.{machine()}-")
    True
    """
    return path.with_name(f"{path.name}.{machine()}-{secrets.token_hex(4)}{PARTIAL}")


def begun(path: Path) -> list[Path]:
    """Every unfinished file of `path`, whoever began it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> new_name(path).touch()
    >>> [found.suffix for found in begun(path)], begun(Path(folder.name, "other.h5"))
    (['.partial'], [])
    >>> folder.cleanup()
    """
    return _beside(path, rf"\.[\w-]+{re.escape(PARTIAL)}")


def hold(path: Path) -> tuple[Path, int] | None:
    """An unfinished file that this machine began and no process writes: its name, and a descriptor that has its lock.
    None where there is none.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> print(hold(path))
    None
    >>> new_name(path).touch()
    >>> found, fd = hold(path)
    >>> print(hold(path))  # it is held
    None
    >>> os.close(fd)
    >>> folder.cleanup()
    """
    for found in begun(path):
        if is_of_this_machine(_MACHINE.sub("", found.name.removeprefix(f"{path.name}.")), path.parent):
            # Another person's, or just published and so with two names, or replaced by what is no file.
            with contextlib.suppress(PermissionError, FileNotFoundError, NotAFileError):
                make_writable(found)
                fd = open_write(found)
                if is_ours(fd) and claim(fd) and has_one_name(fd) and found.exists():
                    # Neither published nor removed in the meantime.
                    return found, fd
                os.close(fd)
    return None


def make_writable(unfinished: Path) -> None:
    """Undoes what a builder does just before it publishes its file, if it was killed then.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     make_writable(Path(file.name))
    """
    if not os.access(unfinished, os.W_OK):
        with open_read(unfinished, follow=False) as file:
            ours = has_one_name(file.fileno()) and is_ours(file.fileno())
            if ours and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) | stat.S_IWUSR)


def publish(unfinished: Path, path: Path) -> bool:
    """The step that publishes a whole, synced file: `path` appears in one step, and never replaces another file.

    Where a file is there already, that stays. False where `unfinished` lost its name before: a builder that could not
    tell that this one lives has copied its blocks, and has not published yet. Raises StorageError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> unfinished = new_name(path)
    >>> publish(unfinished, path)
    False
    >>> unfinished.touch()
    >>> publish(unfinished, path), path.exists()
    (True, True)
    >>> folder.cleanup()
    """
    try:
        os.link(unfinished, path)
    except FileExistsError:
        _require_published(path)
    except FileNotFoundError:
        return path.exists()
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise storage_error(error, path, "publishing") from error
        if os.path.lexists(path):  # another builder may have published it since
            _require_published(path)
        else:
            return _renamed(unfinished, path)
    return True


def _require_published(path: Path) -> None:
    """Raises StorageError where what has the name of a cache is no file."""
    if not path.is_file():
        raise StorageError(
            f"{path}: publishing: {kind(path)} has that name, where a file is expected; remove it"
        )


def _renamed(unfinished: Path, path: Path) -> bool:
    try:
        os.rename(unfinished, path)
    except FileNotFoundError:
        return path.exists()
    except OSError as error:
        raise storage_error(error, path, "publishing") from error
    return True


def marks_of(unfinished: Path) -> list[Path]:
    """The files that say which rows of an unfinished file are written, one of each process that wrote into it.

    >>> marks_of(Path("digits.h5.host-1.partial"))
    []
    """
    return _beside(unfinished, rf"\.\w+{re.escape(MARKS)}")


def synced_of(unfinished: Path) -> list[Path]:
    """The files that say which blocks of an unfinished file are on the disk, one of each process that wrote into it.

    >>> synced_of(Path("digits.h5.host-1.partial"))
    []
    """
    return _beside(unfinished, rf"\.\w+{re.escape(SYNCED)}")


def logs_of(unfinished: Path) -> list[Path]:
    """All files that say something of an unfinished file: those of `marks_of` and of `synced_of`, and
    `decant.cache.io.joint`.

    >>> logs_of(Path("digits.h5.host-1.partial"))
    []
    """
    return _beside(unfinished, _LOG)


def remove(unfinished: Path) -> None:
    """Removes an unfinished file and the logs beside it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> unfinished = new_name(Path(folder.name, "digits.h5"))
    >>> unfinished.touch()
    >>> unfinished.with_name(f"{unfinished.name}.1f{MARKS}").touch()
    >>> remove(unfinished)
    >>> list(unfinished.parent.iterdir())
    []
    >>> folder.cleanup()
    """
    logs = logs_of(unfinished)
    unfinished.unlink(missing_ok=True)
    for found in logs:
        found.unlink(missing_ok=True)


def remove_all(path: Path) -> None:
    """Removes what is left of building `path`, once that is published; its own second name last.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> new_name(path).touch()
    >>> remove_all(path)
    >>> begun(path)
    []
    >>> folder.cleanup()
    """
    second = _second_names(path)
    others = [found for found in begun(path) if found not in second]
    logs = _beside(path, rf"\.[\w-]+{re.escape(PARTIAL)}{_LOG}")
    for found in [*_drafts(path), *logs, *others, *second]:
        with contextlib.suppress(OSError):  # another person's, in a folder that protects it
            found.unlink(missing_ok=True)


def finish_publishing(path: Path) -> None:
    """Removes what is left where the builder of `path` was killed just after publishing it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> path.touch()
    >>> os.link(path, new_name(path))
    >>> finish_publishing(path)
    >>> begun(path)
    []
    >>> folder.cleanup()
    """
    if _second_names(path):
        remove_all(path)


def _drafts(path: Path) -> list[Path]:
    """What unfinished files were until their headers were whole."""
    return _beside(path, rf"\.[\w-]+({re.escape(PARTIAL)}\.\w+)?{re.escape(DRAFT)}")


def _beside(path: Path, ending: str) -> list[Path]:
    """Files, and no links or pipes, whose names are that of `path` and then what the pattern `ending` matches."""
    pattern = re.compile(re.escape(path.name) + ending)
    with os.scandir(path.parent) as entries:
        names = [
            entry.name
            for entry in entries
            if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
        ]
    return [path.parent / name for name in sorted(names)]


def _second_names(path: Path) -> list[Path]:
    """Partial names of the published file itself: it was whole and checked when it got its own name."""
    names = []
    for found in begun(path):
        with contextlib.suppress(FileNotFoundError):
            if found.samefile(path):
                names.append(found)
    return names


@cache
def machine() -> str:
    r"""This machine as the names of unfinished files have it: the host's name, its network address if it has one, and
    what differs also between copies of one machine, as containers of one image on two hosts are.

    >>> re.fullmatch(r"\w+", machine()) is not None
    True
    """
    host, node = re.sub(r"\W+", "_", socket.gethostname(), flags=re.ASCII)[:40], uuid.getnode()
    invented = node >> 40 & 1  # what uuid does where there is no address; it changes from process to process
    return "_".join([host, *([] if invented else [f"{node:012x}"]), *filter(None, [boot_id()])])


def is_of_this_machine(named: str, folder: Path) -> bool:
    """Whether `machine` has given this name here. In a folder that no other machine can have, also before this one was
    started anew.

    >>> is_of_this_machine(machine(), Path(".")), is_of_this_machine("elsewhere", Path("."))
    (True, False)
    """
    if named == machine():
        return True
    return _BOOT.sub("", named) == _BOOT.sub("", machine()) and is_of_one_machine(folder)
