"""One row of the table: what was found, and what is aimed at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Unit(Enum):
    """What a figure is: a ratio to what it is measured against, or a quantity."""

    RATE = "× its rate"
    TIME = "× its time"
    SHARE = "of that"
    PART = "of its time"
    MILLISECONDS = "ms"
    SECONDS = "s"
    MEGABYTES = "MB"
    MEBIBYTES = "MiB"
    IMAGES = "images/s"
    MILLIONS = "million rows/s"
    INSTRUCTIONS = "instructions"

    @property
    def more_is_better(self) -> bool:
        """Whether a target is the least that is aimed at, and not the most."""
        return self in (Unit.RATE, Unit.SHARE, Unit.IMAGES, Unit.MILLIONS)


@dataclass(frozen=True)
class Measurement:
    """What was found of one thing, alone or against another."""

    row: int
    what: str
    against: str
    """Empty where the figure stands alone."""
    found: float
    unit: Unit
    target: float | None = None
    note: str = ""
    """What helps to read the figure, beside it in the table."""
    details: Mapping[str, float] = field(default_factory=dict)
    """What the figure was worked out from: medians in seconds, repetitions."""

    @property
    def met(self) -> bool | None:
        """Whether the target is; None without one."""
        if self.target is None:
            return None
        return self.found >= self.target if self.unit.more_is_better else self.found <= self.target

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.row,
            "what": self.what,
            "against": self.against,
            "found": self.found,
            "unit": self.unit.value,
            "target": self.target,
            "note": self.note,
            "met": self.met,
            "details": dict(self.details),
        }


def table(rows: list[Measurement]) -> str:
    """All of them in Markdown."""
    lines = ["| # | what | against | found | target | met |", "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *map(line, rows)])


def line(row: Measurement) -> str:
    """One of them, as a line of the table."""
    sign = "≥" if row.unit.more_is_better else "≤"
    target = "–" if row.target is None else f"{sign} {row.target:g}"
    met = {True: "yes", False: "no", None: "–"}[row.met]
    found = f"{number(row.found)} {row.unit.value}" + (f" ({row.note})" if row.note else "")
    return f"| {row.row} | {row.what} | {row.against or '–'} | {found} | {target} | {met} |"


def number(value: float) -> str:
    """To three digits at least, with thousands separators."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 4)}f}"
