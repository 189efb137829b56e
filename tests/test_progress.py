"""Progress: items pass unchanged, a terminal sees a bar, anything else sees nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pipeline.progress import progress, track

SCRIPT = """
import time
from pipeline.progress import progress, track
for _ in track(range(1500), "counting sheep"):
    time.sleep(0.0003)
with progress("counting goats", 10) as advance:
    advance(10)
"""


def test_items_pass_unchanged_and_in_order() -> None:
    assert list(track(range(100), "counting")) == list(range(100))
    assert list(track((value for value in "abc"), "counting", total=3)) == ["a", "b", "c"]
    assert list(track([], "counting")) == []


def test_items_are_asked_for_one_at_a_time() -> None:
    asked = []

    def source() -> Iterator[int]:
        for value in range(10):
            asked.append(value)
            yield value

    tracked = track(source(), "counting", total=10)
    assert next(tracked) == 0
    assert asked == [0]


def test_an_error_on_the_way_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        list(track((1 // value for value in (1, 0)), "counting", total=2))
    with pytest.raises(ZeroDivisionError), progress("counting", 2):
        _ = 1 // 0


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}, {"TTY_COMPATIBLE": "1"}])
def test_a_pipe_sees_nothing(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, check=True, env={**os.environ, **environment}
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_terminal_sees_count_rate_and_time_left_and_keeps_no_trace_on_stdout() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    assert process.returncode == 0
    text = seen.decode()
    assert "counting sheep" in text
    assert "/1500" in text
    assert "/s" in text
    assert "0:00:0" in text, "time left"
