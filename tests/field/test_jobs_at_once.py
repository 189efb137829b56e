"""Jobs of a sweep that start together share a teacher, a cache and a baseline: each waits for what another makes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from decant.pipeline.runs.locks import alone_with
from tests.helpers.commands import TINY, decant, fork_python, only, start, succeed, tiny
from tests.helpers.processes import PATIENCE, ROOT
from tests.helpers.processes import line as line_of

JOBS = 8
HOLD = """
import sys
from pathlib import Path
from decant.pipeline.runs.locks import alone_with
with alone_with(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def together(commands: Iterable[tuple[str, ...]], cwd: Path) -> list[subprocess.CompletedProcess[str]]:
    """All of them at once; all must work."""
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [pool.submit(tiny, *command, cwd=cwd) for command in commands]
        done = [job.result() for job in jobs]
    for one in done:
        succeed(one)
    return done


def test_jobs_at_once_make_everything_once(tmp_path: Path) -> None:
    done = together([("teacher",)] * JOBS, tmp_path)
    assert sum(one.stdout.count("made ") for one in done) == 1, [one.stdout for one in done]
    assert all(one.stderr.count("waiting: ") <= 1 for one in done)
    done = together([("cache-logits",)] * 3, tmp_path)
    assert sum(one.stdout.count("made ") for one in done) == 1, [one.stdout for one in done]
    temperatures = (1, 2, 1, 2)
    done = together(
        [("student", "--set", f"student.objective.temperature={value}") for value in temperatures], tmp_path
    )
    assert sum(one.stdout.count("made ") for one in done) == 3, "two distilled students and one baseline"
    assert len(list(tmp_path.glob("runs/digits/student-*/seed-0/result.json"))) == 3
    assert not [*tmp_path.glob("**/*.partial"), *tmp_path.glob("**/*.draft")]


def test_eight_different_commands_at_once_on_one_run_folder_all_work(tmp_path: Path) -> None:
    for phase in ("teacher", "cache-logits"):
        succeed(tiny(phase, cwd=tmp_path))
    recipe = [("student",), ("student",), ("teacher",), ("cache-logits",), ("evaluate",), ("status",)]
    cache = [("cache", "verify"), ("cache", "ls")]
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [pool.submit(tiny, *words, cwd=tmp_path) for words in recipe]
        jobs += [pool.submit(decant, *words, cwd=tmp_path) for words in cache]
    for job in jobs:
        succeed(job.result())
    run = str(only(tmp_path, "runs/digits/student-*-kd-*/seed-0/result.json").parent)
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [pool.submit(tiny, *words, cwd=tmp_path) for words in [("report",)] * 2 + [("evaluate",)] * 2]
        jobs += [pool.submit(decant, "report", run, cwd=tmp_path) for _ in range(2)]
        jobs += [
            pool.submit(decant, "cache", *words, cwd=tmp_path)
            for words in (("gc", "--unused-days", "1"), ("ls",))
        ]
    for job in jobs:
        succeed(job.result())
    assert "<html" in only(tmp_path, "runs/digits/report.html").read_text("utf-8")
    assert not [*tmp_path.glob("**/*.partial"), *tmp_path.glob("**/*.draft")]


def test_exports_and_collections_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    succeed(tiny("teacher", cwd=tmp_path))
    run = str(only(tmp_path, "runs/digits/teacher-*/result.json").parent)
    commands = [
        ("export", run, "--formats", "pt2", "--samples", "4"),
        ("cache", "gc", "--unused-days", "0"),
        ("status",),
    ]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda words: decant(*words, cwd=tmp_path), commands * 2))
    for one in done:
        succeed(one)


def test_a_job_goes_on_where_the_one_that_it_waits_for_is_killed(tmp_path: Path) -> None:
    succeed(tiny("teacher", cwd=tmp_path))
    result = only(tmp_path, "runs/digits/teacher-*/result.json")
    result.unlink()
    holder = fork_python(HOLD, result.parent, cwd=tmp_path)
    assert line_of(holder) == "held\n"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tiny, "teacher", cwd=tmp_path)
        time.sleep(0.5)
        assert not waiting.done()
        holder.kill()
        done = waiting.result()
    holder.communicate()
    assert "made " in succeed(done)
    assert result.exists()


def test_an_interrupt_ends_the_wait_at_once(tmp_path: Path) -> None:
    succeed(tiny("teacher", cwd=tmp_path))
    result = only(tmp_path, "runs/digits/teacher-*/result.json")
    saved = result.read_bytes()
    result.unlink()
    with alone_with(result.parent):
        waiting = start("teacher", *TINY, "--set", "student.seeds=1", cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert waiting.stderr is not None
        assert f"waiting: process {os.getpid()} on " in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, said = waiting.communicate(timeout=PATIENCE)
        assert waiting.returncode == 1
        assert "Traceback" not in said
        assert "interrupted" in said
        assert time.monotonic() - started < 60
    result.write_bytes(saved)
