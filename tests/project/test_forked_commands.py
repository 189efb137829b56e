"""Commands that tests fork are ended, whatever becomes of the test."""

from __future__ import annotations

import time

from tests.helpers.processes import finished, line, python

FORK = """
import multiprocessing, time
from tests.helpers.forked_commands import ForkedCommand
forks = multiprocessing.get_context("forkserver")
"""


def test_a_command_that_has_just_begun_is_killed() -> None:
    killed = "command = ForkedCommand(forks, time.sleep, 60)\ncommand.kill()\nprint(command.wait(20))\n"
    assert finished(python(FORK + killed)) == "-9\n"


def test_a_command_that_a_test_left_is_killed_when_the_tests_end() -> None:
    left = "command = ForkedCommand(forks, time.sleep, 60)\nprint(command.pid, flush=True)\n"
    started = time.monotonic()
    assert finished(python(FORK + left), timeout=20).strip().isdigit()
    assert time.monotonic() - started < 20


def test_lines_that_came_at_once_are_read_one_by_one() -> None:
    script = "import sys; sys.stdout.write('one\\ntwo\\n'); sys.stdout.flush(); sys.stdin.readline()"
    child = python(script)
    assert (line(child), line(child, timeout=3)) == ("one\n", "two\n")
    assert child.poll() is None, "killed, as if it had said nothing"
    finished(child)
