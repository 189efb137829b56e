"""Drafts: files that are written beside the name that they are to have.

A draft is locked by the process that writes it. One that nobody has locked was left by a process that was killed, and
is removed by whoever writes a file of that name next.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path

from decant.cache.io.flock import EXCLUSIVE, try_flock
from decant.cache.io.opening import create_new, is_ours, open_lock

DRAFT = ".draft"
"""Ends the name of a draft."""


def draft_name(path: Path) -> Path:
    """A name for a draft of `path`, which nobody can guess.

    >>> draft_name(Path("result.json")).name.endswith(DRAFT)
    True
    """
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{DRAFT}")


def create_draft(path: Path) -> tuple[Path, int]:
    """Creates a draft of `path`, locked as long as its descriptor is open: its name and the descriptor. Raises OSError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "result.json")
    >>> draft, fd = create_draft(path)
    >>> remove_dead_drafts(path)  # it is written
    >>> draft.exists()
    True
    >>> os.close(fd)
    >>> remove_dead_drafts(path)
    >>> draft.exists()
    False
    >>> folder.cleanup()
    """
    while True:
        draft = draft_name(path)
        fd = create_new(draft)
        if try_flock(fd, EXCLUSIVE) is not False and draft.exists():
            return draft, fd
        os.close(fd)  # somebody has taken it for a dead one before it was locked


def remove_dead_drafts(path: Path) -> None:
    """Removes the drafts of `path` that processes have left which were killed. Where there are no locks, or somebody
    else owns them, they stay.

    >>> remove_dead_drafts(Path("no/such/folder/result.json"))
    """
    pattern = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{8}}{re.escape(DRAFT)}")
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for draft in [path.with_name(entry.name) for entry in entries if pattern.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                fd = open_lock(draft, create=False)  # it may have its second name already, which stays
                try:
                    if is_ours(fd) and try_flock(fd, EXCLUSIVE):
                        draft.unlink()
                finally:
                    os.close(fd)
