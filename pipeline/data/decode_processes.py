"""Processes beside the threads that decode: where there are many cores, and threads would wait for each other.

Around the decoder, which lets go of the interpreter's lock, 50 to 100 µs of an image hold it. So threads make some
10,000 images a second at most, on any number of cores, and the teacher's own thread waits for that lock too. Processes
make the more, the more cores there are. They take a moment to start: they are started when much is left to be made, and
are kept where they make more than threads did. What a process cannot make, a thread makes, which says what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from threading import Thread

from decant.pipeline.data.decode_process import Answer, Destination
from decant.pipeline.data.listed_reader import ListedFile
from decant.pipeline.data.thread_count import ThreadCount
from decant.pipeline.support.notices import say_once

FEWEST_CORES = 4
"""With fewer, threads decode nearly as much as processes would."""
_IMAGES_AT_ONCE = 16
"""That a process is sent: a message for each would take the time that is to be spared."""
_WORTH_SECONDS = 3.0
"""Of decoding by threads must be left, or processes are not worth their start."""
_START_SECONDS = 30.0
_PATIENCE_SECONDS = 60.0
"""After which a process that has not made a few images is taken to be stopped, or stuck."""
_SECONDS, _EACH = 0.5, 2
"""The rate of processes is that of half a second at least, in which each has made so many blocks on average."""
_BETTER = 1.05
_ENDING_SECONDS = 10.0
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1])\n"
    "from decant.pipeline.data.decode_process import main; main(*json.loads(sys.argv[2]))"
)

FilesOf = Callable[[int, int], Sequence[ListedFile]]
"""First and end index → the files of these images."""


class DecodeProcess:
    """The connection to a process, for one thread."""

    def __init__(self, connection: Connection, destination: Destination, files: FilesOf) -> None:
        self._connection, self._layout, self._files = connection, destination.layout, files
        self._connection.send(destination)
        self.is_ready, self.has_ended, self._pid = False, False, 0

    def look(self) -> None:
        """Sees whether it has started, or ended."""
        try:
            if not self.is_ready and not self.has_ended and self._connection.poll(0):
                self._pid, self.is_ready = self._connection.recv(), True
        except (EOFError, OSError):
            self.close()

    def make(self, blocks: Sequence[int]) -> list[bool | None]:
        """Of each block whether it is made; None where it is to be made here. Says what the process has to say."""
        try:
            self._connection.send([(block, self._files(*self._layout.bounds(block))) for block in blocks])
            if not self._connection.poll(_PATIENCE_SECONDS):
                os.kill(self._pid, signal.SIGKILL)  # stopped, it would keep others from its block
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):  # it was killed
            self.close()
            return [None] * len(blocks)
        for text, about in answer[1]:
            say_once(text, about)
        return answer[0]

    def close(self) -> None:
        """Ends the process, once it has made what it was sent."""
        self.is_ready, self.has_ended = False, True
        self._connection.close()


class DecodeProcesses:
    """As many processes as there are cores, if these make more than threads."""

    def __init__(self, destination: Destination, files: FilesOf) -> None:
        self._destination, self._files = destination, files
        self.at_once = max(1, _IMAGES_AT_ONCE // destination.layout.per_block)
        """Blocks that a process is sent."""
        self._server: subprocess.Popen[bytes] | None = None
        self._all: list[DecodeProcess] = []
        self._rate_of_threads: float | None = None
        self._since: tuple[int, float] | None = None
        """While they start, and until it is decided: what was made by then."""
        self.count, self._is_over = 0, False
        """How many of them make blocks; 0 where threads alone do."""

    def take(self, number: int) -> DecodeProcess | None:
        """The process of a thread, if it is to make its blocks by one."""
        if number < self.count and self._all[number].is_ready:
            return self._all[number]
        return None

    def see(self, made: int, now: float, threads: ThreadCount) -> bool:
        """Decides whether they make blocks; False where the number of threads is to be decided. made: blocks until now;
        now: seconds of any clock.
        """
        if self._is_over or threads.most < FEWEST_CORES or not _has_interpreter():
            return False
        if self._server is None:
            left = self._destination.layout.num_blocks - made
            if threads.rate is None or left < _WORTH_SECONDS * threads.rate:
                return False
            self._rate_of_threads, self._since = threads.rate, (made, now)
            self._start(threads.most)
        for process in self._all:
            process.look()
        ready = sum(process.is_ready for process in self._all)
        if not self.count:
            return self._begin(ready, made, now)
        if not ready:  # killed, all of them
            self._end()
        elif self._since is not None:
            self._compare(made, now)
        return not self._is_over

    def close(self) -> None:
        """Ends them, and does not wait for it."""
        self._end()
        for process in self._all:
            process.close()
        if self._server is not None:
            Thread(target=_see_end, args=(self._server,), daemon=True).start()

    def _begin(self, ready: int, made: int, now: float) -> bool:
        """Has them make blocks once all have started."""
        assert self._since is not None
        alive = sum(not process.has_ended for process in self._all)
        if ready and ready == alive:
            self.count, self._since = len(self._all), (made, now)
        elif not alive or now - self._since[1] > _START_SECONDS:
            self._end()
        return not self._is_over

    def _compare(self, made: int, now: float) -> None:
        assert self._since is not None
        assert self._rate_of_threads is not None
        blocks, seconds = made - self._since[0], now - self._since[1]
        if seconds < _SECONDS or blocks < _EACH * self.count * self.at_once:
            return
        self._since = None
        if blocks / seconds < _BETTER * self._rate_of_threads:
            self._end()

    def _end(self) -> None:
        self.count, self._is_over = 0, True

    def _start(self, count: int) -> None:
        """Starts them; none where the system does not allow it."""
        pairs: list[tuple[socket.socket, socket.socket]] = []
        try:
            pairs += [socket.socketpair() for _ in range(count)]
            theirs = [their.fileno() for _, their in pairs]
            paths = json.dumps([str(path) for path in sys.path])
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, paths, json.dumps([os.getpid(), theirs])],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": "1",
                    "OPENBLAS_NUM_THREADS": "1",
                    "MKL_NUM_THREADS": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[*theirs, *self._destination.descriptors],
                start_new_session=True,  # Ctrl-C is for the process that speaks to the user
            )
            self._all = [
                DecodeProcess(Connection(ours.detach()), self._destination, self._files) for ours, _ in pairs
            ]
        except (OSError, TypeError):  # TypeError: the interpreter's path is not known
            self._end()
        finally:
            for pair in pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.close()


def _has_interpreter() -> bool:
    """Whether `sys.executable` is Python, on Linux; in a program that was frozen it is that program."""
    return sys.platform == "linux" and not getattr(sys, "frozen", False)


def _see_end(server: subprocess.Popen[bytes]) -> None:
    """Waits until the process ends, as it does with those that it has forked."""
    try:
        server.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
