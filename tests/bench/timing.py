"""Two things timed in turn, A B A B …, so that a machine whose speed drifts does not favour one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """The rate of one thing over the rate of another."""

    what: str
    against: str
    seconds: float
    """Median of one repetition of `what`."""
    against_seconds: float
    target: str

    @property
    def ratio(self) -> float:
        """How many times as fast `what` is."""
        return self.against_seconds / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio}


def compare(
    what: str,
    one: Callable[[], object],
    against: str,
    other: Callable[[], object],
    *,
    target: str,
    repetitions: int = 15,
    inner: tuple[int, int] = (1, 1),
) -> Measurement:
    """Medians of interleaved repetitions after one warm-up of each; `inner` is how often a repetition calls each."""
    times: tuple[list[float], list[float]] = ([], [])
    for repetition in range(repetitions + 1):
        for place, (call, count) in enumerate(zip((one, other), inner, strict=True)):
            started = time.perf_counter()
            for _ in range(count):
                call()
            if repetition:
                times[place].append((time.perf_counter() - started) / count)
    return Measurement(what, against, statistics.median(times[0]), statistics.median(times[1]), target)
