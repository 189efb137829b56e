"""Phase one in several processes of one core each, under torchrun, against one; and what goes on with a large file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.caching import random_images, taught
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from benchmarks.simulation import SIZES, SMALL, begin, measured
from benchmarks.timing import Timed, compare
from decant.pipeline.ranks.cores import own_cores

_ROOT = Path(__file__).parents[1]


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 23: resnet20, whose arithmetic decides; from the first batch to the published file."""
    if own_cores() < 2:
        raise LeftOut("two processes need two cores")
    count, base = conditions.choose(20_000, 2_048), conditions.folder / "phase-one-ranks"
    recipe = random_images(conditions, base, count, "float32")
    taught(conditions, recipe, base / "runs" / recipe.name)
    path = base / f"{recipe.name}.toml"
    path.write_text(recipe.to_toml(), "utf-8")
    what = f"`decant cache-logits` under torchrun, resnet20, {count:,} CIFAR-sized images"
    for ranks, against, unit, target in ((2, 1, Unit.RATE, 1.9), (4, 2, Unit.TIME, 1.03)):
        yield compare(
            23, f"{what}, {ranks} processes", _seconds(base, path, ranks), f"{against} of one core",
            _seconds(base, path, against), unit=unit, target=target, repetitions=conditions.choose(3, 1),
        )  # fmt: skip


def _seconds(base: Path, recipe: Path, ranks: int) -> Timed:
    """What so many ranks say that the pass took."""

    def run() -> float:
        with tempfile.TemporaryDirectory(dir=base) as store:
            command = [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"),
                *("-m", "decant", "cache-logits", "--recipe", str(recipe), "--runs", str(base / "runs")),
                *("--store", store, "--json"),
            ]
            done = subprocess.run(
                command,
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=True,
            )
        (made,) = json.loads(done.stdout[done.stdout.index("[\n") :])
        return float(made["seconds"])

    return run


def resume(conditions: Conditions) -> Iterator[Measurement]:
    """Row 24: how much of a large unfinished file is read to go on with it, where nothing is left to compute."""
    size = conditions.choose(SIZES[2], SMALL[0])
    path = begin(size, conditions.folder)
    (unfinished,) = conditions.folder.glob("cache.h5.*.partial")
    found, nbytes = measured("resume", path, size), unfinished.stat().st_size
    for left in conditions.folder.glob("cache.h5.*"):
        left.unlink()
    yield Measurement(
        24, f"read to go on with an unfinished cache of {nbytes / 1e9:,.1f} GB (sparse), all of it written",
        "", found["read"] / 1e6, Unit.MEGABYTES, 0.02 * nbytes / 1e6, note=f"{found['read'] / nbytes:.2%} of it",
        details={"seconds": found["seconds"], "bytes": found["read"], "against_bytes": nbytes},
    )  # fmt: skip
