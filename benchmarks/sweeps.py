"""How long a sweep takes: many small students of one cache, and the labels-only ones that they are compared with."""

from __future__ import annotations

import importlib.util
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit

_SETTINGS = ("data.validation=0.15", "teacher.epochs=10", "teacher.network.width=16")
_OVER = (
    "student.lr=log:0.003..0.1",
    "student.objective.temperature=1,2,4,8",
    "student.objective.alpha=0.5,0.9",
)


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 19: the recipe `digits` swept with 24 trials of each kind and 3 fresh seeds, in two processes."""
    decant = Path(sysconfig.get_path("scripts")) / "decant"
    if importlib.util.find_spec("optuna") is None or not decant.exists():
        raise LeftOut("optuna or the command is not installed; run: pip install --editable '.[sweep]'")
    trials, seeds = conditions.choose(24, 2), conditions.choose(3, 1)
    words = [word for setting in _SETTINGS for word in ("--set", setting)]
    words += ["--set", f"student.epochs={conditions.choose(40, 1)}"]
    over = [word for setting in _OVER for word in ("--over", setting)]
    for phase in ("teacher", "cache-logits"):
        subprocess.run([decant, phase, *words], cwd=conditions.folder, stdout=subprocess.DEVNULL, check=True)
    sweep = [decant, "sweep", *words, *over, "--trials", str(trials), "--seeds", str(seeds), "--jobs", "2"]
    started = time.perf_counter()
    subprocess.run(sweep, cwd=conditions.folder, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - started
    yield Measurement(
        19,
        f"a sweep of the recipe `digits`, {trials} trials",
        "",
        seconds,
        Unit.SECONDS,
        None if conditions.quick else 180.0,
        note=f"and as many of the baseline, {seeds} fresh seeds of both, two processes",
        details={"seconds": seconds, "repetitions": 1},
    )
