"""Runs the installed command in a real terminal and in a real shell."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

from tests.helpers.commands import FORKS, be_the_command, decant, succeed
from tests.helpers.forked_commands import forked
from tests.helpers.processes import PATIENCE


def terminal(*command: str | Path, cwd: Path, **env: str) -> str:
    """What a terminal of 120 columns is sent by a command that must work: its stdout and stderr together."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        list(map(str, command)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**_plain(), "TERM": "xterm-256color", "COLUMNS": "120", **env},
    ) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


class Terminal:
    """`decant WORDS` in a process of its own whose output is a terminal: forked, see `tests.helpers.commands`."""

    def __init__(self, *words: str | Path, cwd: Path, **env: str):
        self._ours, theirs = pty.openpty()
        given = ([*map(str, words)], cwd, {**_plain(), **env})
        nothing = os.open(os.devnull, os.O_RDONLY)
        self._process = forked(FORKS, (nothing, theirs, theirs), be_the_command, *given)
        self.said = b""  # so far
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    def _gather(self) -> None:
        while part := _read(self._ours):
            self.said += part
        os.close(self._ours)

    def all_said(self) -> str:
        """What it was sent, once the command has ended well."""
        self._thread.join(PATIENCE)
        self._process.join(PATIENCE)
        assert self._process.exitcode == 0, self.said
        return self.said.decode()


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}


def typed(line: str, cwd: Path, **env: str) -> str:
    """The output of a line of commands that must work. A real shell makes words of it; the commands are forked."""
    return "".join(
        succeed(decant(*words, cwd=folder, **env)) for folder, words in as_a_shell_reads(line, cwd)
    )


def as_a_shell_reads(line: str, cwd: Path) -> list[tuple[Path, list[str]]]:
    """The folder and the words of each `decant` that a shell would start, were each to work."""
    script = f"decant() {{ printf '%s\\0' \"$PWD\" \"$@\" ''; }}; set -e; {line}"
    read = subprocess.run(["sh", "-c", script], cwd=cwd, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    commands = [command.split("\0") for command in read.stdout.removesuffix("\0\0").split("\0\0")]
    return [(Path(folder), words) for folder, *words in commands]


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
