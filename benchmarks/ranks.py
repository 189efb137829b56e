"""Phase two in two processes of one core each, against one: whole students in each, and one student in both."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.conditions import Conditions, LeftOut
from benchmarks.images import viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare
from decant.cache import Store
from decant.pipeline import objectives
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.joined_ranks import training_group
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.ranks import leaving
from decant.pipeline.ranks.cores import own_cores
from decant.pipeline.ranks.job import Job, join
from decant.pipeline.training.epoch_log import trained_seconds
from decant.pipeline.training.loop import train

CPU = torch.device("cpu")
BATCH = 256


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Rows of students by seeds, and of one student whose batches two processes divide."""
    if own_cores() < 2:
        raise LeftOut("two processes need two cores")
    plan = _plan(conditions, Path(conditions.folder, "ranks"))
    make_teacher(plan, CPU)
    cache_logits(plan, CPU, print)
    yield compare(
        18,
        f"{plan.settings.student.seeds} students by seeds, conv on digits, {plan.settings.student.epochs} epochs, "
        "2 processes of one core",
        _seconds(conditions, "students", 2),
        "1 process",
        _seconds(conditions, "students", 1),
        unit=Unit.RATE,
        target=1.9,
        repetitions=conditions.choose(5, 1),
    )
    for what, name in (("", "together"), (", batch_norm_ranks", "apart")):
        yield compare(
            18,
            f"an epoch of resnet20, batch {BATCH}{what}, 2 processes of one core",
            _seconds(conditions, name, 2),
            "1 process",
            _seconds(conditions, "together", 1),
            unit=Unit.RATE,
            repetitions=conditions.choose(5, 1),
        )


def _plan(conditions: Conditions, folder: Path, *more: str) -> Plan:
    epochs, seeds = conditions.choose((60, 4), (1, 2))
    settings = ("teacher.epochs=2", f"student.epochs={epochs}", f"student.seeds={seeds}")
    recipe = load_recipe("digits", [*settings, "student.baseline=false", *more])
    return Plan.of(recipe, folder / "runs", Store(Path(conditions.folder, "ranks", "caches")))


def _seconds(conditions: Conditions, name: str, count: int) -> Timed:
    """What so many processes take, from when all of them have imported what they need."""

    def run() -> float:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        given = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
        }
        words = [
            sys.executable,
            "-m",
            "benchmarks.ranks",
            name,
            str(conditions.folder),
            str(conditions.quick),
        ]
        processes = [
            subprocess.Popen(
                words,
                env={
                    **os.environ,
                    **given,
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]
        said = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            raise RuntimeError(f"{words}: a process failed")
        return float(json.loads(said[0]))

    return run


def _students(conditions: Conditions, job: Job | None) -> float:
    """Seconds of all students, in a folder of their own."""
    folder = tempfile.mkdtemp(dir=conditions.folder) if job is None or job.is_first else None
    shared = Path(str(folder) if job is None else job.share("folder", folder, "a folder"))
    (cache,) = Path(conditions.folder, "ranks", "caches").glob("*.h5")
    plan = _plan(conditions, shared, f"cache.from={cache}")
    _ = plan.splits, plan.data.student_fingerprints
    _wait_for_all(job)
    started = time.perf_counter()
    list(train_students(plan, CPU))
    return time.perf_counter() - started


def _epoch(conditions: Conditions, job: Job | None, apart: bool) -> float:
    """Seconds of one epoch, as its log has them."""
    data = viewed(conditions, conditions.choose(10 * BATCH, 2 * BATCH))
    content = {
        "network": "resnet20",
        "epochs": 1,
        "batch_size": BATCH,
        "batch_norm_ranks": 2 if apart else None,
    }
    settings = Training.model_validate(content)
    network = build_network(specify_network(settings.network, data), conditions.seed)
    with training_group(job, CPU) as group, tempfile.TemporaryDirectory() as folder:
        train(
            network, data, objectives.from_labels(), settings, Path(folder), views=data.cached_views,
            evaluate_on=lambda _: Metrics(), device=CPU, group=group,
        )  # fmt: skip
        return trained_seconds(Path(folder))


def _wait_for_all(job: Job | None) -> None:
    if job is not None:
        job.count("ready")
        for _ in job.polls("ranks that begin together"):
            if job.count("ready", 0) == job.size:
                break


def _main(name: str, folder: str, quick: str) -> None:
    """One of the processes."""
    conditions, job = Conditions(Path(folder), quick == "True", seed=0), join()
    seconds = _students(conditions, job) if name == "students" else _epoch(conditions, job, name == "apart")
    print(json.dumps(seconds))
    leaving.leave(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
