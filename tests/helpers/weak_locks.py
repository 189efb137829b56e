"""What the locks of a file system may be worth between two writers: less than those of a disk."""

from __future__ import annotations

import errno
import fcntl

import pytest

WEAK = ("no locks", "locks that end at the machine")


def weaken(locks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes locks as weak as one of `WEAK` says; of another name they stay as they are."""
    if locks == "no locks":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
    elif locks == "locks that end at the machine":
        monkeypatch.setattr(fcntl, "flock", lambda *_: None)
