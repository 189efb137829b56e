"""What is said on stderr without stopping: files that are left out, and what is doubtful."""

from __future__ import annotations

import sys
from collections.abc import Callable

from decant.pipeline.ranks.said import is_first_to_say
from decant.pipeline.support.terminal import one_line

_said: set[str] = set()
_tell: Callable[[str, str | None], object] | None = None


def say(text: str) -> None:
    """Prints one line on stderr, at once."""
    print(one_line(text), file=sys.stderr, flush=True)


def say_once(text: str, about: str | None = None) -> None:
    """Prints a line on stderr; no second one of the same text, or about the same subject, in this process
    or by another rank of its job.

    >>> import contextlib, io
    >>> with contextlib.redirect_stderr(io.StringIO()) as stderr:
    ...     say_once("photos: left out 2 files"), say_once("photos: left out 2 files")
    (None, None)
    >>> stderr.getvalue()
    'photos: left out 2 files\\n'
    """
    key = about or text
    if key not in _said:
        _said.add(key)
        if _tell is not None:
            _tell(text, about)
        elif is_first_to_say(key):
            say(text)


def forget_what_was_said() -> None:
    """Lets every line be said again, as in a new process."""
    _said.clear()


def tell_instead(tell: Callable[[str, str | None], object]) -> None:
    """From here on `say_once` gives line and subject to `tell` alone, which hands them to the process that speaks for
    this one.
    """
    global _tell
    _tell = tell
