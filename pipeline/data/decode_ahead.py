"""Threads that decode images before they are read: first those that somebody waits for, then all others in order.

The decoder lets go of the interpreter's lock, so threads use several cores; of many, each has a process make its blocks
(`decode_processes`). What they make lies where everybody finds it, in a pack or in an array, so nothing bounds how far
they are ahead. While they run, PyTorch's threads sleep when they wait (`openmp_teams`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Thread

from decant.pipeline.data.decode_processes import DecodeProcess, DecodeProcesses
from decant.pipeline.data.openmp_teams import hold_team
from decant.pipeline.data.thread_count import ThreadCount
from decant.pipeline.ranks.cores import allowed_cores, available_cores

_POLL_SECONDS = 0.001
_BETWEEN_SECONDS = 0.25
_ENDING_SECONDS = 2.0


class DecodeAhead:
    """Makes blocks in threads. Threads start with the first `want`; a process that was forked since has none, and makes
    what it needs itself.

    Between threads there are no locks but operations that the interpreter does not divide: a signal that raises in the
    main thread would leave a lock taken.

    >>> made = []
    >>> ahead = DecodeAhead(3, lambda block: made.append(block) or True)
    >>> ahead.want([2])
    >>> ahead.finish(lambda blocks: None)
    >>> sorted(made), list(ahead.done)
    ([0, 1, 2], [1, 1, 1])
    """

    def __init__(
        self,
        num_blocks: int,
        make: Callable[[int], bool],
        close: Callable[[], object] = lambda: None,
        between: Callable[[], object] = lambda: None,
        threads: int | None = None,
        processes: DecodeProcesses | None = None,
    ) -> None:
        """make: makes a block; False where another process is about to, and it is tried again later. close: is called
        in a thread when all blocks are made. between: is called now and then until then. threads: at most so many, by
        default one a core. processes: that may make blocks in place of `make`.
        """
        self._num_blocks, self._make, self._close, self._between = num_blocks, make, close, between
        self._threads, self._processes = ThreadCount(threads or available_cores()), processes
        self.done = bytearray(num_blocks)
        """1 for each block that is made."""
        self._wanted, self._later = deque[int](), deque[int]()
        self._in_order, self._unbegun = iter(range(num_blocks)), [True]
        self._making: dict[int, object] = {}
        self._is_exhausted = False
        """Whether no block is left for a thread that starts."""
        self._stopped, self._process, self._thread = False, os.getpid(), Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None
        """What has ended the threads."""

    def want(self, blocks: Iterable[int]) -> None:
        """Has these made before all others; starts the threads."""
        if self._is_forked():
            return
        self._wanted.extend(block for block in blocks if not self.done[block])
        with contextlib.suppress(IndexError):  # somebody else has begun
            self._unbegun.pop()
            _running.add(self)
            self._thread.start()

    def require(self, blocks: Sequence[int]) -> None:
        """Returns when blocks are made, by whichever thread; does not wait for other processes. This thread makes some
        too, from the last one on, and so meets the others. Raises what `make` raises of those that it makes.
        """
        self._is_forked()
        for block in reversed(blocks):
            while not self.done[block]:
                if self._try(block) is not None:
                    break
                time.sleep(_POLL_SECONDS)

    def finish(self, show: Callable[[int], object]) -> None:
        """Waits for the threads, where they have begun. show: is given the number of blocks that were made meanwhile,
        now and then. What has gone wrong is in `error`.
        """
        shown = 0
        while self._has_begun:
            self._thread.join(_BETWEEN_SECONDS)
            # Before they are counted, or the last ones would not be shown.
            is_over = not self._thread.is_alive()
            made = self.done.count(1)
            show(made - shown)
            shown = made
            if is_over:
                return

    def stop(self) -> None:
        """Has the threads end when each has made its block, and waits for that, but not long."""
        self._stopped = True
        if self._has_begun and self._thread.is_alive():
            self._thread.join(_ENDING_SECONDS)

    @property
    def _has_begun(self) -> bool:
        return self._process == os.getpid() and self._thread.ident is not None

    def _is_forked(self) -> bool:
        """Whether this is another process than that of the threads; what these were making is then nobody's."""
        if self._process == os.getpid():
            return False
        if self._unbegun != [False]:
            self._making, self._unbegun = {}, [False]
        return True

    def _try(self, block: int) -> bool | None:
        """Makes a block; None where another thread is making it, False where another process is."""
        if self._making.setdefault(block, mine := object()) is not mine:
            return None
        try:
            if not self.done[block] and self._make(block):
                self.done[block] = 1
            return bool(self.done[block])
        finally:
            del self._making[block]

    def _run(self) -> None:
        threads = dict[int, Thread]()
        try:
            while True:
                self._start(threads)
                alive = [thread for thread in threads.values() if thread.is_alive()]
                if not alive:
                    if self._stopped or not self._later:
                        break
                    self._is_exhausted = False  # what a thread has left that was one too many in the end
                    continue
                for thread in alive:
                    thread.join(_BETWEEN_SECONDS / len(alive))
                self._see(self.done.count(1), time.monotonic())
                self._between()
            if not self._stopped:
                self._close()
        except BaseException as error:  # raised by who reads
            self._stop_for(error)
        finally:
            if self._processes is not None:
                self._processes.close()

    @property
    def _count(self) -> int:
        """How many threads are to run."""
        return (self._processes is not None and self._processes.count) or self._threads.count

    def _see(self, made: int, now: float) -> None:
        """Decides how many threads are to run, and whether by processes."""
        if self._processes is None or not self._processes.see(made, now, self._threads):
            self._threads.see(made, now)

    def _start(self, threads: dict[int, Thread]) -> None:
        """Starts those that are to run and do not, as long as there is work. Raises RuntimeError where the system
        starts none.
        """
        for number in range(self._count):
            if self._stopped or self._is_exhausted:
                return
            if number not in threads or not threads[number].is_alive():
                thread = Thread(target=self._work, args=(number,), daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    if not number:
                        raise
                    self._threads.limit(number)
                    return
                threads[number] = thread

    def _work(self, number: int) -> None:
        try:
            hold_team(number, allowed_cores())
            while not self._stopped and number < self._count:
                process = None if self._processes is None else self._processes.take(number)
                blocks = self._take(
                    1 if process is None or self._processes is None else self._processes.at_once
                )
                if not blocks:
                    self._is_exhausted = True
                    return
                if process is not None:
                    self._make_by(process, blocks)
                for block in blocks:
                    if not self.done[block] and not self._try(block):
                        self._later.append(block)
        except BaseException as error:
            self._stop_for(error)

    def _make_by(self, process: DecodeProcess, blocks: Iterable[int]) -> None:
        """Has a process make blocks, but those that another thread is making."""
        mine = object()
        taken = [block for block in blocks if self._making.setdefault(block, mine) is mine]
        try:
            for block, is_made in zip(taken, process.make(taken), strict=True):
                if is_made:
                    self.done[block] = 1
        finally:
            for block in taken:
                del self._making[block]

    def _take(self, count: int) -> list[int]:
        """At most so many blocks to be made; none where none is left."""
        blocks = dict[int, None]()
        while len(blocks) < count and (block := self._next(may_wait=not blocks)) is not None:
            if not self.done[block]:
                blocks[block] = None
        return list(blocks)

    def _next(self, may_wait: bool) -> int | None:
        """A block to be made; None where there is none left, or with `may_wait` those alone that others are making."""
        with contextlib.suppress(IndexError):
            return self._wanted.popleft()
        if (block := next(self._in_order, None)) is not None:
            return block
        if may_wait:
            with contextlib.suppress(IndexError):
                block = self._later.popleft()
                time.sleep(0 if self.done[block] else _POLL_SECONDS)  # others are making it
                return block
        return None

    def _stop_for(self, error: BaseException) -> None:
        self.error, self._stopped = self.error or error, True


_running: weakref.WeakSet[DecodeAhead] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Threads that still decode while the interpreter is taken down would use what is no longer there."""
    for ahead in list(_running):
        ahead.stop()
