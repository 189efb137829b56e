"""Commands that tests fork are ended, whatever becomes of the test."""

from __future__ import annotations

import time

from tests.helpers.processes import finished, python

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
