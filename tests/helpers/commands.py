"""Runs the real command line in a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

TINY = ("--set", "teacher.network.width=4", "--set", "teacher.epochs=2", "--set", "student.epochs=2")
"""The digits recipe, small enough for a test; one seed."""


def decant(
    *words: str | Path, cwd: Path, timeout: float = 120, **env: str
) -> subprocess.CompletedProcess[str]:
    """`decant WORDS` in the folder `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "decant", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def tiny(phase: str, *words: str, cwd: Path, seeds: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """A phase of the small digits recipe."""
    return decant(phase, *TINY, "--set", f"student.seeds={seeds}", *words, cwd=cwd, **env)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must have worked."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The message of a command that must have refused, in words and without a traceback."""
    assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip()


def start(*words: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """`decant WORDS` in the background, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "decant", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hears_interrupts,
    )


def _hears_interrupts() -> None:
    """As a command in the foreground does, whoever started the tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def only(folder: Path, pattern: str) -> Path:
    """The one path below `folder` that fits."""
    found = sorted(folder.glob(pattern))
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]
