"""A disk that grows by a page, or by one file, each time that something fails on it: each write is once the one that it
does not take.

Run in a mount namespace of its own, since it mounts: `unshare -m python -m tests.helpers.small_disks FOLDER KIND
[report]`, KIND being bytes or inodes. Prints a line of JSON: the messages, in their order.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from decant.cache import CacheError, LogitCache, Store, export_logits
from decant.pipeline.cli.error_words import of_error
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.report.output import make_report
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.runs.notes import remember_cache

CPU = torch.device("cpu")
NETWORKS = [f"{who}.{what}" for who in ("teacher", "student") for what in ('network="linear"', "epochs=2")]


def everything(disk: Path, report: bool) -> None:
    """All phases, an exported table and perhaps a report, with everything that they write on the disk."""
    plan = Plan.of(
        load_recipe("digits", [*NETWORKS, "student.seeds=1"]), disk / "runs", Store(disk / "store")
    )
    make_teacher(plan, CPU)
    cache = cache_logits(plan, CPU, print).cache
    remember_cache(plan.recipe, plan.base, cache.path)
    list(train_students(plan, CPU))
    export_logits(LogitCache.open(cache.path), disk / "logits.npy")
    if report:
        make_report(of_recipe(plan.recipe, plan.base, plan.store, CPU), plan.base)


def until_it_works(work: Callable[[Path], None], disk: Path, kind: str) -> list[str]:
    """Calls `work` on a disk that is enlarged until it ends; every message before."""
    size, messages = {"bytes": 4096, "inodes": 2}[kind], list[str]()
    options = {"bytes": "size={},nr_inodes=0", "inodes": "size=64m,nr_inodes={}"}[kind]
    mount = ["mount", "-t", "tmpfs", "-o", options.format(size), "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    while True:
        try:
            work(disk)
            return messages
        except (OSError, CacheError) as error:
            messages.append(of_error(error))
            print(size, messages[-1], file=sys.stderr, flush=True)
        again = len(messages) > 1 and messages[-1] == messages[-2]
        size += {"bytes": 16384 if again else 4096, "inodes": 1}[kind]  # a large file needs many pages
        subprocess.run(["mount", "-o", f"remount,{options.format(size)}", str(disk)], check=True)


if __name__ == "__main__":
    report = sys.argv[3:] == ["report"]  # which takes seconds
    print(json.dumps(until_it_works(lambda disk: everything(disk, report), Path(sys.argv[1]), sys.argv[2])))
