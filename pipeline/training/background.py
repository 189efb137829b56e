"""Work in a thread beside the main one: the next batches are prefetched, results are written later, in order and with a
bounded number waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yields the same items in the same order, up to `depth` of them made beforehand in a thread; an error that the
    iterable raises is raised here in the item's place.

    >>> list(prefetch(range(4)))
    [0, 1, 2, 3]
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(next, source, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class BackgroundWriter:
    """Makes calls in a thread, one after the other; where `depth` are waiting, the caller waits too.

    An error of a call is raised at one of the next calls, or when the block is left: none is lost. Where the block
    itself fails, the calls that still wait are not made.

    >>> with BackgroundWriter() as write_later:
    ...     write_later(print, "written")
    written
    """

    def __init__(self, depth: int = 4) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="write-later")
        self._depth, self._waiting = depth, deque[Future[Any]]()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls `function(*args)` after all earlier calls are done."""
        while len(self._waiting) >= self._depth or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(function, *args))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for call in self._waiting:
                call.result()
