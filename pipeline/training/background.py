"""Work beside the main thread: batches made ahead of it, and results put away behind it, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items in the same order, up to `depth` of them made beforehand by a thread of their own; what that
    raises is raised here in its place.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        waiting = deque(pool.submit(next, source, _END) for _ in range(depth))
        while (item := waiting.popleft().result()) is not _END:
            waiting.append(pool.submit(next, source, _END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class Behind:
    """Calls that a thread of their own makes, one after the other; at most `depth` wait, then the caller does.

    What a call raises is raised at one of the next calls, or on leaving the block: nothing is dropped unseen.
    Where the block itself fails, what still waits is not called.
    """

    def __init__(self, depth: int = 4) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._depth, self._waiting = depth, deque[Future[Any]]()

    def __enter__(self) -> Behind:
        return self

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Has `function(*args)` called once what came before is done."""
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
