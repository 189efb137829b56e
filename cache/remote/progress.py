"""Who shows how far a transfer is: nobody, until a program says how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Advance = Callable[[float], None]
"""Adds so many bytes to what is done."""
Show = Callable[[str, int], AbstractContextManager[Advance]]
"""(what is transferred, its bytes) → a context that yields an `Advance`."""


@contextlib.contextmanager
def _nothing(what: str, total: int) -> Iterator[Advance]:
    yield lambda count: None


_show: list[Show] = [_nothing]


def show_progress(show: Show) -> None:
    """Has `show` called with each transfer from now on.

    >>> show_progress(_nothing)
    >>> with transfer("fetching digits.h5", 100) as advance:
    ...     advance(50)
    """
    _show[0] = show


def transfer(what: str, total: int) -> AbstractContextManager[Advance]:
    """Shows a transfer of `total` bytes."""
    return _show[0](what, total)
