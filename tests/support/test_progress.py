"""Progress: items pass unchanged, a terminal sees a bar, anything else sees nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from decant.pipeline.support.progress import progress, track
from tests.helpers.shells import colours, terminal

SCRIPT = """
import time
from decant.pipeline.support.progress import progress, track
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


def test_a_terminal_sees_count_rate_and_time_left_and_keeps_no_trace_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text(SCRIPT)
    seen = terminal("sh", "-c", f"{sys.executable} counting.py > stdout", cwd=tmp_path)
    assert (tmp_path / "stdout").read_text() == ""
    for part in ("counting sheep", "/1500", "/s", "0:00:0"):
        assert part in seen


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_a_bar_is_coloured_unless_no_color_is_set(environment: dict[str, str], tmp_path: Path) -> None:
    seen = terminal(sys.executable, "-c", SCRIPT, cwd=tmp_path, **environment)
    assert "counting sheep" in seen
    assert bool(colours(seen)) is ("NO_COLOR" not in environment)
