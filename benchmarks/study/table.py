"""The study's figures as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def schedules_of(study: dict[str, Any]) -> list[str]:
    """ "short" and "long", in this order; "short" alone where both are of one length."""
    return list(dict.fromkeys(run["schedule"] for run in study["runs"]))


def arms_of(study: dict[str, Any]) -> list[str]:
    """The names of the ways, in the order in which they ran."""
    return list(dict.fromkeys(run["arm"] for run in study["runs"]))


def values(study: dict[str, Any], arm: str, schedule: str, what: str = "top1") -> np.ndarray[Any, Any]:
    """(seeds,) of one figure, by seed."""
    chosen = [run for run in study["runs"] if (run["arm"], run["schedule"]) == (arm, schedule)]
    return np.array([run[what] for run in sorted(chosen, key=lambda run: run["seed"])], dtype=float)


def epochs_of(study: dict[str, Any], schedule: str) -> int:
    """How long a schedule is."""
    return next(run["epochs"] for run in study["runs"] if run["schedule"] == schedule)


def markdown(study: dict[str, Any]) -> str:
    """A row for each way: top-1 and its difference from the live teacher's, with the standard error of the paired
    difference, agreement with the teacher, seconds and bytes.
    """
    schedules = schedules_of(study)
    last, lengths = schedules[-1], [f"{epochs_of(study, schedule)} epochs" for schedule in schedules]
    headings = [
        "student",
        *lengths,
        *(f"against live, {length}" for length in lengths),
        "agreement, " + lengths[-1],
    ]
    headings += ["training, " + lengths[-1], "cache", "teacher's pass"]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for arm in arms_of(study):
        cells = [arm]
        cells += [_percent(values(study, arm, schedule)) for schedule in schedules]
        cells += [_against_live(study, arm, schedule) for schedule in schedules]
        cells += [_percent(values(study, arm, last, "agreement"))]
        cells += [f"{np.median(values(study, arm, last, 'seconds')):,.0f} s", *_cost(study, arm)]
        lines.append(_line(cells))
    return "\n".join(lines)


def _percent(shares: np.ndarray[Any, Any]) -> str:
    spread = f" ± {100 * shares.std(ddof=1):.2f}" if len(shares) > 1 else ""
    return f"{100 * shares.mean():.2f}{spread}"


def _against_live(study: dict[str, Any], arm: str, schedule: str) -> str:
    if arm == "live teacher":
        return ""
    difference = 100 * (values(study, arm, schedule) - values(study, "live teacher", schedule))
    error = f" (SE {difference.std(ddof=1) / np.sqrt(len(difference)):.2f})" if len(difference) > 1 else ""
    return f"{difference.mean():+.2f}{error}"


def _cost(study: dict[str, Any], arm: str) -> tuple[str, str]:
    """The cache's size, and what one pass of the teacher over all its rows takes, at the rate of the passes
    that this study made: a cache of more views takes over those of one with fewer.
    """
    run = next(run for run in study["runs"] if run["arm"] == arm)
    if run["views"] is None:
        live = (
            values(study, arm, schedules_of(study)[-1], "live_seconds")
            if arm == "live teacher"
            else np.zeros(0)
        )
        return "", f"{np.nanmedian(live):,.0f} s a student" if len(live) and np.isfinite(live).any() else ""
    made = [run for run in study["runs"] if run["cache_rows"]]
    rate = sum(run["cache_rows"] for run in made) / max(sum(run["cache_seconds"] for run in made), 1e-9)
    return f"{run['bytes'] / 1e6:,.1f} MB", f"{run['views'] * study['samples'] / rate:,.1f} s" if made else ""


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
