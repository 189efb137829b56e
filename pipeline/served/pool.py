"""Requests that are under way at the same time, a bounded number of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar

Item = TypeVar("Item", contravariant=True)
Answer = TypeVar("Answer", covariant=True)
Asked = TypeVar("Asked")
Given = TypeVar("Given")
_WAITING = 2  # for each thread: one that it works at, and the next
_PATIENCE = 2.0  # seconds, for all threads to notice that they are not needed any more


class Asker(Protocol[Item, Answer]):
    """What a thread asks with: a connection of its own."""

    def __call__(self, item: Item, /) -> Answer: ...

    def close(self) -> None:
        """Ends what is under way, from another thread."""


def in_threads(
    askers: Sequence[Asker[Asked, Given]], items: Iterable[Asked], leave: Callable[[], None]
) -> Iterator[tuple[Asked, Given]]:
    """Yields (item, answer) as they come, in any order, with a thread for each of `askers`. At most two items of each
    thread are unfinished or wait to be taken, so a slow user of the answers slows the requests.

    An error of one is raised here, and ends all. leave: called at the end, whatever it is; it must make askers give up.
    """
    todo, done = SimpleQueue[list[Asked]](), SimpleQueue[tuple[Asked, list[Given], BaseException | None]]()
    over = list[bool]()

    def work(ask: Asker[Asked, Given]) -> None:
        while (found := todo.get()) and not over:
            item, answer, error = found[0], list[Given](), None
            try:
                answer.append(ask(item))
            except BaseException as raised:  # raised by who takes the answer
                error = raised
            done.put((item, answer, error))

    threads = [Thread(target=work, args=(ask,), name="ask", daemon=True) for ask in askers]
    source, under_way = iter(items), 0
    try:
        for thread in threads:
            thread.start()
        while True:
            while under_way < _WAITING * len(threads) and (more := list(itertools.islice(source, 1))):
                todo.put(more)
                under_way += 1
            if not under_way:
                return
            item, answer, error = done.get()
            under_way -= 1
            if error is not None:
                raise error
            yield item, answer[0]
    finally:
        over.append(True)
        leave()
        for ask in askers:
            todo.put([])
            ask.close()
        until = time.monotonic() + _PATIENCE
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
