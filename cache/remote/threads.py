"""Threads that ask a store. A process must end at a signal also while one of them waits for a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def asking(most: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of at most `most` threads, whose calls are waited for at the end of the block.

    Where an error ends it, those that have not begun are dropped; where a signal does, as Ctrl-C, none is waited for.

    >>> with asking(2) as pool:
    ...     list(pool.map(len, ["a", "bc"]))
    [1, 2]
    """
    pool = ThreadPoolExecutor(most)
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()
