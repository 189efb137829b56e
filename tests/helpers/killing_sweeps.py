"""Kills `decant sweep` at random moments until it ends: `python -m tests.helpers.killing_sweeps FOLDER KILLS SEED`.

What it then says must be what a sweep says that was never killed: the same trials with the same settings and metrics,
the same best, the same figures on the test part. No network that was finished is trained again.
"""

from __future__ import annotations

import importlib
import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.helpers.killing_commands import TRAINING, start, wait

_SETTINGS = (
    *("data.validation=0.2", "teacher.network.width=4", "teacher.epochs=2", "teacher.batch_size=256"),
    *("student.network.hidden=8", "student.epochs=4", "student.batch_size=256", "student.keep=best"),
)
_WORDS = tuple(word for value in _SETTINGS for word in ("--set", value))
_SWEEP = (
    *("sweep", *_WORDS, "--trials", "5", "--seeds", "2", "--pruner", "hyperband"),
    *("--over", "student.lr=log:0.001..0.1", "--over", "student.objective.temperature=1,4"),
)


def said(folder: Path) -> dict[str, Any]:
    """What a sweep has recorded, without how long it took."""
    (path,) = folder.glob("runs/digits/sweep-*/sweep.json")
    record: dict[str, Any] = json.loads(path.read_text())
    for stage in record["stages"]:
        for trial in stage["trials"]:
            del trial["seconds"]
    return record


def finished(folder: Path) -> dict[Path, int]:
    """When each network was finished."""
    runs = [path.parent for path in folder.glob("runs/digits/student-*/*/result.json")]
    return {run: (run / "weights.safetensors").stat().st_ino for run in runs}


def main(root: Path, kills: int, seed: int) -> None:
    """Kills so often, beginning anew where a sweep ended before; prints how often one ended."""
    for name in (*TRAINING, "decant.pipeline.cli.sweep", "decant.pipeline.sweeps.conclusion", "optuna"):
        importlib.import_module(name)
    base, work, chance = root / "base", root / "work", random.Random(seed)
    base.mkdir(parents=True)
    for phase in ("teacher", "cache-logits"):
        assert wait(start((phase, *_WORDS), base)) == 0, (root / "stderr").read_text()
    shutil.copytree(base, work)
    began = time.monotonic()
    assert wait(start(_SWEEP, work)) == 0, (root / "stderr").read_text()
    usual, expected, done, ends = time.monotonic() - began, said(work), 0, 0
    while done < kills:
        shutil.rmtree(work)
        shutil.copytree(base, work)
        kept, code = dict[Path, int](), -signal.SIGKILL
        while code == -signal.SIGKILL:
            found = wait(start(_SWEEP, work), chance.uniform(0, usual / 2) if done < kills else None)
            assert found is not None
            code, done = found, done + (found == -signal.SIGKILL)
            now = finished(work)
            assert kept.items() <= now.items(), "a network that was finished was trained again"
            kept = now
        assert code == 0, (code, (root / "stderr").read_text()[-2000:])
        assert said(work) == expected, "not what a sweep says that was never killed"
        ends += 1
    print(f"{done} kills, {ends} sweeps ended, all alike")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), int(sys.argv[2]), int(sys.argv[3]))
