"""How long somebody who types a command waits for its answer."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from benchmarks.caches import published
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, measure, timed


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


def _wall(*words: str) -> Timed:
    decant = Path(sysconfig.get_path("scripts")) / "decant"
    if not decant.exists():
        raise LeftOut(f"{decant}: not there; run: pip install --editable .")
    return timed(lambda: subprocess.run([str(decant), *words], stdout=subprocess.DEVNULL, check=True))
