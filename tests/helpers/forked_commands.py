"""Commands in the background, each a process of its own that is forked where torch has been imported."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from tests.helpers.processes import PATIENCE


class ForkedCommand:
    """What `subprocess.Popen` is for a new program, for a function that the fork server calls in a process of its own.

    It leads a group of its own, its output comes by pipes, and its signals are real. What it lacks is the start of the
    interpreter and its imports.
    """

    def __init__(
        self, forks: ForkServerContext, run: Callable[..., object], *given: Any, listens: bool = False
    ):
        """With `listens` it can be written to; else its input is empty."""
        (from_in, to_in), (out, to_out), (err, to_err) = os.pipe(), os.pipe(), os.pipe()
        self._process = forked(forks, (from_in, to_out, to_err), run, *given)
        self.stdin = open(to_in, "w", encoding="utf-8")  # noqa: SIM115
        if not listens:
            self.stdin.close()
        self.stdout, self.stderr = (open(end, encoding="utf-8") for end in (out, err))  # noqa: SIM115
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As of a process that has ended; minus the signal that ended it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """To a process that has not ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, if there still is one."""
        _kill(self._process)

    def communicate(self, given: str = "", timeout: float = PATIENCE) -> tuple[str, str]:
        """The rest of what it says, until it has ended, once it has been given the rest of its input; what does not end
        is killed, and raises subprocess.TimeoutExpired.
        """
        if not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write(given)
                self.stdin.close()
        with ThreadPoolExecutor(2) as pool:
            said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        self.stdout.close()
        self.stderr.close()
        return said[0].result(), said[1].result()


def forked(
    forks: ForkServerContext, descriptors: tuple[int, int, int], run: Callable[..., object], *given: Any
) -> BaseProcess:
    """A process, as the leader of a group, that calls `run` with these as stdin, stdout and stderr; they are closed
    here.
    """
    theirs = [Connection(os.dup(number)) for number in descriptors]
    process = forks.Process(target=_lead, args=(theirs, run, given))
    process.start()
    for pipe in theirs:
        pipe.close()
    for number in {*descriptors}:
        os.close(number)
    return process


def _lead(pipes: list[Connection], run: Callable[..., object], given: tuple[Any, ...]) -> None:
    """In the process: calls `run` with these as stdin, stdout and stderr."""
    os.setsid()
    for number, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    run(*given)


def _kill(process: BaseProcess) -> None:
    """SIGKILL to the group of a process, or to it alone where it leads none, as just after its start."""
    assert process.pid is not None
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        if process.exitcode is None:
            process.kill()


def _kill_those_left() -> None:
    """A test that failed may leave a command that never ends, and multiprocessing waits for it at exit."""
    for process in multiprocessing.active_children():
        _kill(process)


Finalize(None, _kill_those_left, exitpriority=0)  # before multiprocessing waits
