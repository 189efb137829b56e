"""How long somebody who types a command waits for its answer."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from benchmarks.caches import published
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare, measure, timed


def answers(conditions: Conditions) -> Iterator[Measurement]:
    """Row 11, a line for each command."""
    cache = published(conditions, *conditions.choose((200_000, 1_000), (20_000, 100)))
    for name, words, target in (
        ("`decant --help`", ("--help",), 0.3),
        ("`decant cache info`", ("cache", "info", str(cache)), 0.5),
    ):
        yield measure(
            11, name, _wall(*words), unit=Unit.SECONDS, target=target, repetitions=conditions.choose(15, 2)
        )  # fmt: skip
    yield compare(
        11,
        "`decant teacher` on digits, 1 epoch, from start to end, processor time",
        _processor_time(conditions.folder, _decant(), "teacher", "--set", "teacher.epochs=1"),
        '`python -c "import torch, torchvision"`',
        _processor_time(conditions.folder, sys.executable, "-c", "import torch, torchvision"),
        unit=Unit.TIME,
        target=1.15,
        repetitions=conditions.choose(9, 1),
    )


def _wall(*words: str) -> Timed:
    return timed(lambda: subprocess.run([_decant(), *words], stdout=subprocess.DEVNULL, check=True))


def _processor_time(folder: Path, *words: str) -> Timed:
    """Of a command, user and system, in a folder where nothing was made yet."""

    def run() -> float:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        before = _of_children()
        subprocess.run(words, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        return _of_children() - before

    return run


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _decant() -> str:
    path = Path(sysconfig.get_path("scripts")) / "decant"
    if not path.exists():
        raise LeftOut(f"{path}: not there; run: pip install --editable .")
    return str(path)
