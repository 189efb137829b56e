"""Work in a thread beside the main one: the next batches are prefetched, results are written later, in order and with a
bounded number waiting.

The threads pass everything through `queue.SimpleQueue`, which is written in C. Ctrl-C raises an exception in the main
thread, whatever Python code runs there. If that code holds a lock, as that of `concurrent.futures` does, the other
thread waits for the lock for ever.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

_END: Any = object()


def prefetch(items: Iterable[Item], depth: int = 2, run: int = 1) -> Iterator[Item]:
    """Yields the same items in the same order, up to `depth` of them made beforehand in a thread, `run` in a row: it
    wakes less often, and finds its code and data in the processor's caches. An error that the iterable raises is raised
    here in the item's place.

    >>> list(prefetch(range(4)))
    [0, 1, 2, 3]
    """
    source, wanted, made = iter(items), SimpleQueue[bool](), SimpleQueue[tuple[Any, BaseException | None]]()
    left = list[bool]()

    def make() -> None:
        while wanted.get() and not left:
            try:
                made.put((next(source, _END), None))
            except BaseException as error:  # raised by whoever takes the item
                made.put((_END, error))

    thread = Thread(target=make, name="prefetch", daemon=True)
    try:
        thread.start()
        for _ in range(depth):
            wanted.put(True)
        for number in itertools.count(1):
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            if number % run == 0:
                for _ in range(run):
                    wanted.put(True)
            yield item
    finally:
        left.append(True)
        wanted.put(False)
        if thread.is_alive():  # a signal may hit while it starts
            thread.join()


def at_once(calls: Sequence[Callable[[], Item]]) -> list[Item]:
    """What some calls return, in their order. The first is made here, and each of the others in a thread of its own, so
    they are to be few. Where some fail, the error of the first of these is raised when all have ended.

    >>> at_once([lambda: "one", lambda: "two"])
    ['one', 'two']
    """
    made = SimpleQueue[tuple[int, Any, BaseException | None]]()

    def make(number: int) -> None:
        try:
            made.put((number, calls[number](), None))
        except BaseException as error:  # raised by the thread that waits for all
            made.put((number, None, error))

    for number in range(1, len(calls)):
        Thread(target=make, args=(number,), name="at-once", daemon=True).start()
    make(0)
    found = sorted((made.get() for _ in calls), key=operator.itemgetter(0))
    for _, _, error in found:
        if error is not None:
            raise error
    return [item for _, item, _ in found]


class Beside:
    """Makes each call in a thread of its own, so they are to be few. Where the block is left, all have ended; the error
    of the first of those that failed is raised, unless the block itself has failed.

    >>> with Beside() as beside:
    ...     beside(print, "written")
    written
    """

    def __init__(self) -> None:
        self._ended, self._count = SimpleQueue[tuple[int, BaseException | None]](), 0

    def __enter__(self) -> Beside:
        return self

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Begins `function(*args)`."""
        named = (self._count, function, args)
        Thread(target=self._make, args=named, name="beside", daemon=True).start()
        self._count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        found = sorted((self._ended.get() for _ in range(self._count)), key=operator.itemgetter(0))
        failed = [one for _, one in found if one is not None]
        if failed and kind is None:
            raise failed[0]

    def _make(self, number: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        found: BaseException | None = None
        try:
            function(*args)
        except BaseException as error:  # raised by who leaves the block
            found = error
        self._ended.put((number, found))


class BackgroundWriter:
    """Makes calls in a thread, one after the other; where `depth` are waiting, the caller waits too.

    An error of a call is raised at one of the next calls, or when the block is left: none is lost. Where the block
    itself fails, the calls that still wait are not made.

    >>> with BackgroundWriter() as write_later:
    ...     write_later(print, "written")
    written
    """

    def __init__(self, depth: int = 4) -> None:
        self._calls, self._done = (
            SimpleQueue[Callable[[], object] | None](),
            SimpleQueue[BaseException | None](),
        )
        self._depth, self._waiting, self._left = depth, 0, False
        self._thread = Thread(target=self._run, name="write-later", daemon=True)

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __call__(self, function: Callable[..., Any], *args: Any) -> None:
        """Calls `function(*args)` after all earlier calls are done."""
        while self._waiting >= self._depth or (self._waiting and not self._done.empty()):
            self._take()
        self._waiting += 1
        self._calls.put(lambda: function(*args))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = kind is not None
        self._calls.put(None)
        self._thread.join()
        while kind is None and self._waiting:
            self._take()

    def _take(self) -> None:
        """Waits for the end of a call; raises its error."""
        error = self._done.get()
        self._waiting -= 1
        if error is not None:
            raise error

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            found: BaseException | None = None
            try:
                if not self._left:
                    call()
            except BaseException as error:  # raised by who calls or leaves next
                found = error
            del call
            self._done.put(found)
