"""`decant student` in several ranks, as a user starts it: killed, refused, and side by side without a launcher."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from decant.cache.io import usage
from decant.pipeline.runs.result import RESULT, WEIGHTS
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers.commands import decant, decant_anew, fork_module, only, refused, succeed
from tests.helpers.processes import PATIENCE, wait_until
from tests.helpers.small import VIEWS, build_cache
from tests.ranks.torchrun import run_ranks, said, start_ranks

MLP = ("student.network=mlp", "student.batch_size=205", "student.lr=0.002", "teacher.network.width=4")


def words(cache: Path, *more: str) -> list[str]:
    """The command, with a cache that is given."""
    settings = [*VIEWS, *MLP, f"cache.from={cache}", *more]
    return ["student", *(word for setting in settings for word in ("--set", setting))]


def weights(base: Path) -> dict[str, dict[str, object]]:
    """The weights of each student below a folder of runs."""
    return {
        str(path.parent.relative_to(base)): dict(load_file(path))
        for path in sorted(base.rglob(f"student*/*/{WEIGHTS}"))
    }


def children(process: int) -> list[int]:
    """The processes that one has started."""
    found = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def test_students_are_trained_side_by_side_as_one_process_trains_them(tmp_path: Path) -> None:
    cache = build_cache(tmp_path, *VIEWS).path
    given = words(cache, "student.seeds=2", "student.epochs=2")
    both = decant(*given, "--jobs", "2", cwd=tmp_path)
    assert succeed(both).count("made runs/digits/") == 4
    assert both.stderr == ""
    assert usage.count(cache) == 1, "by a job, whose ranks are several"
    succeed(decant(*given, "--runs", "alone", cwd=tmp_path))
    one, other = weights(tmp_path / "runs" / "digits"), weights(tmp_path / "alone" / "digits")
    assert one.keys() == other.keys()
    assert len(one) == 4
    for name, tensors in one.items():
        assert all(bool((tensor == other[name][key]).all()) for key, tensor in tensors.items())


def test_side_by_side_is_refused_where_ranks_are_to_train_together(tmp_path: Path) -> None:
    given = words(tmp_path / "no.h5", 'student.parallel="batch"')
    assert "--jobs: trains whole students side by side" in refused(
        decant(*given, "--jobs", "2", cwd=tmp_path), code=2
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_job_with_one_line_and_other_ranks_go_on(tmp_path: Path, rank: int) -> None:
    cache = build_cache(tmp_path, *VIEWS).path
    one_student = ("student.seeds=1", "student.baseline=false", "student.epochs=80")
    # without layers that enlarge what rounding makes
    given = words(cache, 'student.parallel="batch"', "student.network=linear", *one_student)
    job = start_ranks(2, "-m", "decant", *given, cwd=tmp_path)
    runs = tmp_path / "runs"
    wait_until(
        lambda: any(path.read_text().count("\n") > 4 for path in runs.rglob(f"student*/*/{METRICS}")), job
    )
    processes = [
        child for child in children(job.pid) if "decant" in Path(f"/proc/{child}/cmdline").read_text()
    ]
    ranks = {
        int(re.findall(r"\0RANK=(\d+)", Path(f"/proc/{child}/environ").read_text())[0]): child
        for child in processes
    }
    os.kill(ranks[rank], signal.SIGKILL)
    _, err = job.communicate(timeout=PATIENCE)
    (line,) = said(err)
    lost = r"decant: rank \d of 2 on \S+: another rank is lost \(.*\); run the same command again"
    ended = "decant: ended by SIGTERM; everything made so far is kept"  # where torchrun is quicker
    assert re.match(f"{lost}|{ended}", line), line
    assert not list(runs.rglob(f"student*/*/{RESULT}"))
    began = only(runs, f"digits/student*/*/{METRICS}").read_text().splitlines()[:4]
    assert run_ranks(3, "-m", "decant", *given, cwd=tmp_path).returncode == 0
    assert only(runs, f"digits/student*/*/{METRICS}").read_text().splitlines()[:4] == began, "it went on"
    succeed(decant_anew(*given, "--runs", "alone", cwd=tmp_path))
    (one,), (other,) = weights(runs).values(), weights(tmp_path / "alone").values()
    furthest = max(float((one[name] - other[name]).abs().max()) for name in one)  # type: ignore[operator]
    assert furthest < 1e-4


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_students_of_ranks_that_are_killed_at_random_moments_are_those_of_one_process(
    tmp_path: Path, kills: int
) -> None:
    """By seeds bit for bit, by all ranks up to rounding; also with another number of ranks after each kill."""
    said = fork_module("tests.helpers.killing_students", tmp_path, kills, 1)
    assert re.search(rf"^{kills} kills, \d+ times finished; by seeds 0\.0, ", said, re.MULTILINE)


@pytest.mark.slow
def test_ranks_that_would_train_on_other_data_are_refused_with_one_line(tmp_path: Path) -> None:
    cache = build_cache(tmp_path, *VIEWS).path
    script = tmp_path / "start.sh"
    script.write_text(
        f'exec {shlex.quote(sys.executable)} -m decant "$@" --set student.lr=0.00$((RANK + 1))\n'
    )
    done = run_ranks(3, "--no-python", "sh", script, *words(cache), cwd=tmp_path)
    assert done.returncode == 1
    (line,) = said(done.stderr)
    assert re.search(
        r"ranks have not the same recipe: rank 1 on \S+: student.lr is 0.002 and 0.001 on rank 0", line
    )
    assert not list((tmp_path / "runs").rglob(f"student*/*/{METRICS}"))
