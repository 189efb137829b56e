"""The ways of teaching a student. All see the same tokens in the same order, with the same number of steps.

On the schedule "one pass" each token is seen once. On "four epochs" a quarter of them is seen four times: there fixed
draws would be learnt by heart, and a cache of four views has other ones each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from decant.encodings import Sparse
from decant.pipeline.objectives.sparse.targets import Tail

Schedule = Literal["one pass", "four epochs"]
EPOCHS: dict[Schedule, int] = {"one pass": 1, "four epochs": 4}
BOTH = (1.0, 2.0)


@dataclass(frozen=True)
class Rows:
    """What a cache holds of each position."""

    name: str
    """Of the file."""
    encoding: Sparse
    views: int = 1


HEAD_64 = Rows("head-64", Sparse(head=64, temperatures=BOTH))
HEAD_16 = Rows("head-16", Sparse(head=16, temperatures=BOTH))
DRAWS_32 = {
    1.0: Rows("draws-32", Sparse(head=0, draws=32)),
    2.0: Rows("draws-32-t2", Sparse(head=0, draws=32, temperatures=BOTH)),
}
DRAWS_16 = {
    1.0: Rows("draws-16x4", Sparse(head=0, draws=16), views=4),
    2.0: Rows("draws-16x4-t2", Sparse(head=0, draws=16, temperatures=BOTH), views=4),
}


@dataclass(frozen=True)
class Arm:
    """One way of teaching."""

    name: str
    schedule: Schedule
    temperature: float
    """Of the teacher's softmax and the student's, and of no meaning for labels."""
    source: Literal["labels", "live", "hidden"] | Rows
    """What the student is compared with."""
    tail: Tail | None = None

    @property
    def slug(self) -> str:
        """Its name in files."""
        words = f"{self.schedule} {self.name} t{self.temperature:g}"
        return re.sub(r"[^a-z0-9]+", "-", words.lower())


def arms() -> list[Arm]:
    """All of them, those that say most first."""
    found = [Arm("labels only", schedule, 1.0, "labels") for schedule in EPOCHS]
    for temperature in BOTH:
        found += _one_pass(temperature)
        found += _four_epochs(temperature)
    return found


def _one_pass(temperature: float) -> list[Arm]:
    def arm(name: str, source: Literal["live", "hidden"] | Rows, tail: Tail | None = None) -> Arm:
        return Arm(name, "one pass", temperature, source, tail)

    return [
        arm("hidden", "hidden"),
        arm("head 64 + tail", HEAD_64),
        arm("head 64, renormalised", HEAD_64, "drop"),
        arm("draws 32", DRAWS_32[temperature]),
        arm("head 16 + tail", HEAD_16),
        arm("live teacher", "live"),
    ]


def _four_epochs(temperature: float) -> list[Arm]:
    """At T = 2 what is needed to see whether draws still do."""

    def arm(name: str, source: Literal["hidden"] | Rows, tail: Tail | None = None) -> Arm:
        return Arm(name, "four epochs", temperature, source, tail)

    found = [arm("hidden", "hidden"), arm("draws 16, four views", DRAWS_16[temperature])]
    if temperature == 1:
        found += [
            arm("head 64 + tail", HEAD_64),
            arm("head 64, renormalised", HEAD_64, "drop"),
            arm("head 16 + tail", HEAD_16),
        ]
    return found
