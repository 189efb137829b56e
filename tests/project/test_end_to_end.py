"""The whole way, with real kills, through make and through the command."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from decant.cache import FormatError, LogitCache
from decant.pipeline.status.live_progress import row_progress
from tests.helpers.commands import TINY, decant, decant_anew, fork_module, only, start, succeed
from tests.helpers.processes import ROOT, wait_until

MANY_VIEWS = (
    "--set",
    "views.count=48",
    "--set",
    'views.augment=[{op="flip"}]',
    "--set",
    "cache.batch_size=100",
)


def kill_when(ready: Callable[[], bool], *words: str | Path, cwd: Path) -> bool:
    """Starts `decant WORDS` and kills it, the whole group, with SIGKILL once `ready()`; False if it ended before."""
    running = start(*words, cwd=cwd)
    while running.poll() is None and not ready():
        time.sleep(0.005)
    running.kill()
    running.communicate()
    return running.returncode == -signal.SIGKILL


def epochs_done(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs/digits/*/metrics.jsonl"))


def test_a_teacher_killed_twice_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    words = ("teacher", *TINY, "--set", "teacher.epochs=40")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    succeed(decant(*words, cwd=whole))
    for epochs in (3, 10):
        assert kill_when(lambda epochs=epochs: epochs_done(killed) >= epochs, *words, cwd=killed)
    succeed(decant(*words, cwd=killed))
    weights = "runs/digits/teacher-*/weights.safetensors"
    assert only(killed, weights).read_bytes() == only(whole, weights).read_bytes()


def test_a_cache_killed_again_and_again_ends_in_the_file_of_one_that_was_not(tmp_path: Path) -> None:
    succeed(decant("teacher", *TINY, *MANY_VIEWS, cwd=tmp_path))
    words = ("cache-logits", *TINY, *MANY_VIEWS, "--runs", tmp_path / "runs")
    succeed(decant(*words, "--store", tmp_path / "whole", cwd=tmp_path))
    whole = only(tmp_path / "whole", "*.h5")
    published, kills = tmp_path / "killed" / whole.name, 0
    for share in (0.0, 0.3, 0.6):

        def ready(share: float = share) -> bool:
            try:
                found = row_progress(published)
            except FormatError:  # just begun
                return False
            return found is not None and found[0].done >= share * found[0].total

        kills += kill_when(ready, *words, "--store", published.parent, cwd=tmp_path)
        if published.exists():
            LogitCache.open(published, verify="open")
    succeed(decant(*words, "--store", published.parent, cwd=tmp_path))
    assert kills >= 2, f"only {kills} kills met a running command"
    assert published.read_bytes() == whole.read_bytes()
    assert not list(published.parent.glob("*.partial*"))


@pytest.mark.parametrize("kills", [15, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_of_cache_logits_at_random_moments_lose_nothing(kills: int, tmp_path: Path) -> None:
    said = fork_module("tests.helpers.killing_phase", tmp_path, kills, 3)
    assert f"{kills} kills" in said, said


def test_of_two_builders_one_builds_and_the_other_waits_and_says_for_whom(tmp_path: Path) -> None:
    views = (
        "--set",
        "views.count=50",
        "--set",
        'views.augment=[{op="flip"}]',
        "--set",
        "cache.batch_size=50",
    )
    succeed(decant("teacher", *TINY, *views, cwd=tmp_path))
    first = start("cache-logits", *TINY, *views, cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("caches/*.partial")), first)
    first.send_signal(signal.SIGSTOP)  # until the second one waits
    second = start("cache-logits", *TINY, *views, cwd=tmp_path)
    assert second.stderr is not None
    waiting = second.stderr.readline()
    first.send_signal(signal.SIGCONT)
    assert f"waiting: process {first.pid} on " in waiting
    assert "made caches/" in first.communicate()[0]
    assert "found caches/" in second.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 0)
    assert LogitCache.open(only(tmp_path, "caches/*.h5")).verify() == []


def test_make_student_makes_what_it_needs_in_order(tmp_path: Path) -> None:
    environment = Path(sys.prefix)
    if not (environment / ".ready").exists():
        pytest.skip(f"{environment} was not set up by make")
    arguments = " ".join(
        [*TINY, "--set student.seeds=1", f"--runs={tmp_path / 'runs'} --store={tmp_path / 'store'}"]
    )
    noted = tmp_path / "decant"
    noted.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" '' >>{shlex.quote(str(tmp_path / 'commands'))}\n")
    noted.chmod(0o755)
    variables = [f"VENV={environment}", f"ARGS={arguments}", f"DECANT={noted}"]
    made = subprocess.run(
        # -o: the environment that the tests run in is not set up again, whatever its age
        ["make", "-o", f"{environment}/.ready", "student", *variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    commands = (tmp_path / "commands").read_text().removesuffix("\0\0").split("\0\0")
    assert [command.partition("\0")[0] for command in commands] == ["teacher", "cache-logits", "student"]
    for command in commands:
        succeed(decant(*command.split("\0"), cwd=ROOT))
    assert len(list(tmp_path.glob("runs/digits/student-*/seed-0/result.json"))) == 2


def test_make_help_names_every_target_that_a_person_uses() -> None:
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in [
        "demo",
        "test",
        "browser",
        "check",
        "bench",
        "bench-objectives",
        "bench-compare",
        "study",
        "teacher",
        "cache-logits",
        "student",
        "evaluate",
        "report",
        "clean",
    ]:
        assert f"make {target} " in text


def test_everything_is_the_same_through_python_m_and_through_the_script(tmp_path: Path) -> None:
    script = Path(sys.prefix) / "bin/decant"
    if not script.exists():
        pytest.skip("the distribution is not installed here")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == succeed(decant_anew("--version", cwd=tmp_path)).replace(
        "python -m pipeline", "decant"
    )
