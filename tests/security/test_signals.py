"""Signals, and readers that go away: a command ends at once and cleanly, in words, and what it made is kept."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import TINY, start
from tests.helpers.processes import PATIENCE, ROOT, line, wait_until

CODES = {signal.SIGINT: 1, signal.SIGTERM: 143, signal.SIGHUP: 129}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}


def working(how: str, ignored: tuple[signal.Signals, ...] = ()) -> subprocess.Popen[str]:
    """A command that works, and has begun to."""

    def prepare() -> None:
        for number in CODES:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.ending_commands", how],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    )
    assert line(process) == "works\n"
    return process


@pytest.mark.parametrize("how", ["quickly", "error"])
@pytest.mark.parametrize("number", CODES)
def test_each_signal_ends_a_command_with_its_cleaning_done(number: signal.Signals, how: str) -> None:
    process = working(how)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == CODES[number]
    assert out == "cleans\ncleaned\n"
    assert (
        err.strip()
        == f"decant: {WORDS[number]}; everything made so far is kept. Go on with: decant work {how}"
    )


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", CODES)
def test_a_second_one_ends_it_at_once(first: signal.Signals, second: signal.Signals) -> None:
    process = working("slowly")
    process.send_signal(first)
    assert line(process) == "cleans\n"
    process.send_signal(signal.SIGHUP)  # which a closed terminal sends beside the first
    process.send_signal(second)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (-second, "", "")


def test_what_was_told_to_outlive_its_terminal_does() -> None:
    process = working("quickly", ignored=(signal.SIGHUP,))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == CODES[signal.SIGTERM]


def test_a_training_that_a_batch_system_ends_keeps_its_checkpoint(tmp_path: Path) -> None:
    running = start("teacher", *TINY, "--set", "teacher.epochs=5000", cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/digits/teacher-*/checkpoint.pt")), running)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == CODES[signal.SIGTERM]
    assert "decant: ended by SIGTERM; everything made so far is kept. Go on with: decant teacher" in err
    assert "Traceback" not in err
    assert not list(tmp_path.rglob("*.draft"))


@pytest.mark.parametrize("command", ["objectives", "objectives --json", "objectives --no-such-option"])
def test_a_reader_that_goes_away_is_met_with_silence(command: str, tmp_path: Path) -> None:
    decant = f"{shlex.quote(sys.executable)} -m decant {command}"
    for pipeline in (f"{decant} 2>&1 | true", f"{decant} | head -n 1"):
        done = subprocess.run(
            ["bash", "-c", f"{pipeline}; echo ${{PIPESTATUS[0]}}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert "Broken pipe" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.stdout.splitlines()[-1] in ("0", "1", "2"), done.stdout


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "decant", "objectives", "--json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("decant: the output: No space left on device; free some space")
    assert len(done.stderr.splitlines()) == 1
