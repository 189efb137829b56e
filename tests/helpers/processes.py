"""Processes of a test's own, and waiting for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

ROOT = Path(__file__).parents[2]
PATIENCE = 600
"""Seconds until what does not come is taken for stuck: far more than a slow, busy machine needs."""


def python(
    script: str, *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.Popen[str]:
    """A script in a process of its own, which can import what a test can."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_helper(name: str, *arguments: object) -> str:
    """What a module of `tests.helpers` prints that is run as a program, as by hand; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.helpers.{name}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Process(Protocol):
    """One with output to read: a new program, or a `ForkedCommand`."""

    @property
    def stdout(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    @property
    def returncode(self) -> int | None: ...
    def kill(self) -> None: ...
    def communicate(self, *, timeout: float | None = ...) -> tuple[str, str]: ...


def line(process: Process, timeout: float = PATIENCE) -> str:
    """The next line that a script prints; a script that says nothing is killed."""
    assert process.stdout is not None
    # Not by `select`: a second line that came with the first is in the stream's buffer, and no longer in the pipe.
    late = threading.Timer(timeout, process.kill)
    late.start()
    try:
        return process.stdout.readline()
    finally:
        late.cancel()


def finished(process: Process, timeout: float = PATIENCE) -> str:
    """What a script printed, once it has ended well; one that is stuck is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    assert process.returncode == 0, f"ended with {process.returncode}: {out}{err}"
    return out


def wait_until(condition: Callable[[], object], process: Process | None = None, every: float = 0.01) -> None:
    """Returns once `condition()` is true, which a process that must not end before may bring about."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"not within {PATIENCE} s"
        time.sleep(every)
