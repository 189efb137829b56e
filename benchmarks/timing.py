"""Things timed in turn, A B A B …, so that a machine whose speed drifts does not favour one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.measurement import Measurement, Unit

Timed = Callable[[], float]
"""Does something once; how many seconds it took."""


def timed(call: Callable[[], object], count: int = 1) -> Timed:
    """The mean over `count` calls, for what is too short for the clock."""

    def run() -> float:
        started = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - started) / count

    return run


def medians(*things: Timed, repetitions: int) -> list[float]:
    """Median seconds of each, of interleaved repetitions after one of each to warm up."""
    seconds: list[list[float]] = [[] for _ in things]
    for repetition in range(repetitions + 1):
        for thing, found in zip(things, seconds, strict=True):
            took = thing()
            if repetition:
                found.append(took)
    return [statistics.median(found) for found in seconds]


def compare(
    row: int,
    what: str,
    one: Timed,
    against: str,
    other: Timed,
    *,
    unit: Unit,
    target: float | None = None,
    repetitions: int = 15,
) -> Measurement:
    """The ratio of two medians: of rates, or of times."""
    seconds, others = medians(one, other, repetitions=repetitions)
    found = others / seconds if unit is Unit.RATE else seconds / others
    details = {"seconds": seconds, "against_seconds": others, "repetitions": repetitions}
    return Measurement(row, what, against, found, unit, target, details=details)


def measure(
    row: int, what: str, one: Timed, *, unit: Unit, target: float | None = None, repetitions: int = 15
) -> Measurement:
    """One median, in seconds or milliseconds."""
    (seconds,) = medians(one, repetitions=repetitions)
    found = seconds * 1_000 if unit is Unit.MILLISECONDS else seconds
    details = {"seconds": seconds, "repetitions": repetitions}
    return Measurement(row, what, "", found, unit, target, details=details)
