"""The runs that are finished as a table: means over seeds, with their standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

HEADINGS = (
    "student",
    "T",
    "seeds",
    "perplexity",
    "KL to the teacher",
    "KL against hidden, paired",
    "calibration error (%)",
    "same top-1 as the teacher (%)",
    "bytes a token",
)


def markdown(runs: Sequence[dict[str, Any]], untrained: dict[str, Any]) -> str:
    """A table for each schedule, whose rows come in the order of the runs. The paired difference is of the students of
    equal seeds, with its standard error. untrained: what was measured of the student before it is taught.
    """
    lines = [
        f"Measured on {untrained['positions']:,} tokens. The teacher's perplexity is "
        f"{untrained['teacher_perplexity']:.2f}; that of the student before training {untrained['perplexity']:,.0f}, "
        f"its KL {untrained['kl']:.2f}."
    ]
    for schedule in dict.fromkeys(run["schedule"] for run in runs):
        of_schedule = [run for run in runs if run["schedule"] == schedule]
        lines += [
            "",
            f"{schedule}, {of_schedule[0]['tokens']:,} tokens in {of_schedule[0]['steps']:,} steps:",
            "",
        ]
        headings = [*HEADINGS, _cost(of_schedule[0])[0]]
        lines += [_line(headings), _line(["---"] * len(headings))]
        for arm, temperature in dict.fromkeys((run["arm"], run["temperature"]) for run in of_schedule):
            chosen = _chosen(of_schedule, arm, temperature)
            reference = _chosen(of_schedule, "hidden", temperature)
            lines.append(_line(_row(arm, temperature, chosen, {} if arm == "hidden" else reference)))
    return "\n".join(lines)


def _chosen(runs: Sequence[dict[str, Any]], arm: str, temperature: float) -> dict[int, dict[str, Any]]:
    return {run["seed"]: run for run in runs if (run["arm"], run["temperature"]) == (arm, temperature)}


def _row(
    arm: str, temperature: float, runs: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]
) -> list[str]:
    def of_test(name: str, scale: float = 1.0) -> list[float]:
        return [scale * run["test"][name] for run in runs.values()]

    first = next(iter(runs.values()))
    size = first["bytes_per_token"]
    return [
        arm,
        f"{temperature:g}",
        f"{len(runs)}",
        _mean(of_test("perplexity"), 2),
        _mean(of_test("kl"), 4),
        _paired(runs, reference),
        _mean(of_test("calibration_error", 100), 2),
        _mean(of_test("agreement", 100), 2),
        "" if size is None else f"{size:,}",
        f"{np.median([_cost(run)[1] for run in runs.values()]):,.0f}",
    ]


def _cost(run: dict[str, Any]) -> tuple[str, float]:
    """What a run took, and the heading of that: of a GPU, which the runs beside it have a share of, by the clock."""
    if run.get("device", "cpu") == "cpu":
        return "core-seconds", run["core_seconds"]
    return f"seconds, {run['jobs']} runs side by side", run["seconds"]


def _mean(values: list[float], digits: int) -> str:
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _paired(runs: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]]) -> str:
    both = sorted(runs.keys() & reference.keys())
    apart = np.array([runs[seed]["test"]["kl"] - reference[seed]["test"]["kl"] for seed in both])
    if not len(apart):
        return ""
    error = f" (SE {apart.std(ddof=1) / np.sqrt(len(apart)):.4f})" if len(apart) > 1 else ""
    return f"{apart.mean():+.4f}{error}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
