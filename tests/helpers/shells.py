"""Runs the installed command in a real terminal and in a real shell."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import PATIENCE


def terminal(*command: str | Path, cwd: Path, **env: str) -> str:
    """What a terminal of 120 columns is sent by a command that must work: its stdout and stderr together."""
    ours, theirs = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**plain, "TERM": "xterm-256color", "COLUMNS": "120", **env},
    ) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def colours(seen: str) -> list[str]:
    """The orders among what a terminal was sent that set a colour, of letters or of what is behind them."""
    orders = [order.split(";") for order in re.findall(r"\x1b\[([0-9;]*)m", seen)]
    return [code for order in orders for code in order if re.fullmatch(r"[349][0-8]|10[0-7]", code)]


def shell(line: str, cwd: Path, interpreter: str = "sh", **env: str) -> str:
    """The output of a line that must work, in a shell that finds `decant`."""
    done = subprocess.run(
        [interpreter, "-c", line],
        cwd=cwd,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""
