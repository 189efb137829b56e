"""The study's figures as a picture: top-1 by way of teaching, short and long."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.table import arms_of, epochs_of, schedules_of, values

COLOURS = {"short": "#0072B2", "long": "#D55E00"}  # told apart by colour-blind readers (Okabe, Ito, 2008)
MARKS = {"short": "o", "long": "s"}


def draw(studies: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a study: every seed as a small mark, means as large ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(studies), 4.6), layout="constrained")
    for panel, study in zip(figure.subplots(1, len(studies), squeeze=False)[0], studies, strict=True):
        names = arms_of(study)
        for shift, schedule in zip((-0.12, 0.12), schedules_of(study), strict=False):
            colour, mark = COLOURS[schedule], MARKS[schedule]
            for place, name in enumerate(names):
                shares = 100 * values(study, name, schedule)
                panel.plot(
                    np.full(len(shares), place + shift), shares, mark, color=colour, alpha=0.35, markersize=4
                )
                label = f"{epochs_of(study, schedule)} epochs" if place == 0 else None
                panel.plot([place + shift], [shares.mean()], mark, color=colour, markersize=8, label=label)
            live = 100 * values(study, "live teacher", schedule).mean()
            panel.axhline(live, color=colour, linewidth=0.8, linestyle=":")
        panel.set_xticks(
            range(len(names)), [name.replace(", ", ",\n") for name in names], rotation=35, ha="right"
        )
        title = f"{study['recipe']}: {study['student']} from {study['teacher']['network']}"
        panel.set(ylabel="test top-1 (%)", title=title)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32), ncols=2, frameon=False)
        panel.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """`python -m benchmarks.study.figure STUDY.json… PICTURE.png`: several studies beside each other."""
    *studies, picture = map(Path, sys.argv[1:])
    draw([json.loads(path.read_text()) for path in studies], picture)
    print(f"made {picture}")


if __name__ == "__main__":
    main()
