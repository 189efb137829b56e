"""The unfinished file of a cache: what it is called, and who may write into it.

While `PATH` is built, its rows are in `PATH.MACHINE-TOKEN.partial`. Two builders of one cache must never
write into one file, also where locks do not exist or do not reach from one machine to the next. So a file has
one builder: whoever holds its lock on the machine that began it. Any other builder only reads it, and copies
its sound blocks into a file of its own; a name is never given to a second file, so nobody can publish another
builder's.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import stat
import uuid
from functools import cache
from pathlib import Path

from decant.cache.io.files import DRAFT
from decant.cache.io.locks import claim

PARTIAL = ".partial"


def new_name(path: Path) -> Path:
    """A name that no other partial file of `path` has had or will have."""
    return path.with_name(f"{path.name}.{machine()}-{secrets.token_hex(4)}{PARTIAL}")


def begun(path: Path) -> list[Path]:
    """Every unfinished file of `path`, whoever began it."""
    return _named(path, PARTIAL)


def hold(path: Path) -> tuple[Path, int] | None:
    """A partial file that this machine began and nobody writes: its name, and it, opened and locked."""
    for found in begun(path):
        if found.name.removeprefix(f"{path.name}.").startswith(f"{machine()}-"):
            with contextlib.suppress(
                PermissionError, FileNotFoundError
            ):  # another person's, or just finished
                if not os.access(found, os.W_OK):  # its builder was killed when it was about to publish it
                    found.chmod(stat.S_IMODE(found.stat().st_mode) | stat.S_IWUSR)
                fd = os.open(found, os.O_RDWR | os.O_CLOEXEC)
                if claim(fd) and os.fstat(fd).st_nlink == 1:  # not published in the meantime
                    return found, fd
                os.close(fd)
    return None


def remove_all(path: Path) -> None:
    """Removes what is left of building `path`, once that is published; its own second name last."""
    second = _second_names(path)
    others = [found for found in begun(path) if found not in second]
    for found in [*_named(path, DRAFT), *others, *second]:
        with contextlib.suppress(OSError):  # another person's, in a folder that protects it
            found.unlink(missing_ok=True)


def finish_publishing(path: Path) -> None:
    """Removes what is left where the builder of `path` was killed just after publishing it."""
    if _second_names(path):
        remove_all(path)


def _named(path: Path, suffix: str) -> list[Path]:
    """Files `PATH.MACHINE-TOKEN.partial`, or the drafts that such a file was until its header was whole."""
    named = re.compile(re.escape(path.name) + rf"\.[\w-]+({re.escape(PARTIAL)}\.\w+)?{re.escape(suffix)}")
    return sorted(found for found in path.parent.iterdir() if named.fullmatch(found.name))


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
    """This machine as partial files have it: the host's name, and its network address if it has one."""
    host, node = re.sub(r"\W+", "_", socket.gethostname(), flags=re.ASCII)[:40], uuid.getnode()
    invented = node >> 40 & 1  # what uuid does where there is no address; it changes from process to process
    return host if invented else f"{host}_{node:012x}"
