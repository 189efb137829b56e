"""Every objective for classes on the digits, at its defaults: `python -m benchmarks.objectives`.

Student, initial weights, order, epochs and learning rate are those of the recipe `digits` for all, and so are teacher
and cache; `general` learns from a second teacher too, the first's twin of another seed. The test part is measured once,
when a student is finished, and nothing is chosen by it.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from decant.cache import Store
from decant.cache.io.files import write_atomically
from decant.pipeline.config.objectives import names_for
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.report import learnt
from decant.pipeline.runs.result import Result

CPU = torch.device("cpu")
LABELS = "labels only"


@dataclass(frozen=True)
class Outcome:
    """What students came to that learnt in one way."""

    name: str
    settings: str
    top1: tuple[float, ...]
    """On the test part, by seed."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.top1)

    @property
    def worded(self) -> str:
        """Percent, mean ± standard deviation over the seeds."""
        spread = f" ± {100 * statistics.stdev(self.top1):.2f}" if len(self.top1) > 1 else ""
        return f"{100 * self.mean:.2f}{spread}"

    def against(self, other: Outcome) -> str:
        """The mean difference in points, seed by seed, and its standard error."""
        differences = [100 * (one - two) for one, two in zip(self.top1, other.top1, strict=True)]
        error = (
            f" (± {statistics.stdev(differences) / len(differences) ** 0.5:.2f})"
            if len(differences) > 1
            else ""
        )
        return f"{statistics.fmean(differences):+.2f}{error}"


def measure(folder: Path, seeds: int, overrides: Sequence[str] = ()) -> list[Outcome]:
    """Trains what is not there yet; labels only come first."""
    outcomes = []
    for name in names_for("classification"):
        recipe = _recipe(name, seeds, overrides)
        store = Store(folder / "caches")
        plan = Plan.of(recipe, folder, store)
        for each in plan.by_teacher:
            make_teacher(each, CPU)
            cache_logits(each, CPU, print)
        results = [result for result, _ in train_students(plan, CPU)]
        print(f"{name}: done", flush=True)
        if not outcomes:
            outcomes.append(_outcome(LABELS, [result for result in results if result.kind == "labels"]))
        outcomes.append(_outcome(name, [result for result in results if result.kind == "distilled"]))
    return outcomes


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The table, best first, and a sentence on the best and the worst objective."""
    alone, *objectives = outcomes
    ranked = sorted(objectives, key=lambda outcome: -outcome.mean)
    lines = [
        "| objective | settings | test top-1, % | against labels only, points |",
        "|---|---|---|---|",
        *(f"| {one.name} | {one.settings} | {one.worded} | {one.against(alone)} |" for one in ranked),
        f"| {alone.name} | | {alone.worded} | |",
    ]
    best, worst = ranked[0], ranked[-1]
    return "\n".join(
        [
            *lines,
            "",
            f"{len(alone.top1)} seeds; mean ± standard deviation over them; differences seed by seed, with the "
            "standard error of their mean.",
            f"Best: {best.name}, {best.worded} %, {best.against(alone)} points. "
            f"Worst: {worst.name}, {worst.worded} %, {worst.against(alone)} points. "
            f"Best against worst: {best.against(worst)} points.",
        ]
    )


def _recipe(objective: str, seeds: int, overrides: Sequence[str]) -> Recipe:
    words = [f"student.objective={objective}", f"student.seeds={seeds}", *overrides]
    words.append("student.evaluate_every=1000000")  # the last epoch alone
    return load_recipe("digits", [*words, *(_twin(overrides) if objective == "general" else [])])


def _twin(overrides: Sequence[str]) -> list[str]:
    """What makes the knowledge of `general` a teacher that differs in its seed alone."""
    teacher = load_recipe("digits", overrides).settings.teacher
    network = "".join(f", {name} = {value}" for name, value in teacher.network.args.items())
    values = teacher.model_dump(exclude_none=True, exclude={"network", "seed", "milestones"})
    return [
        f'knowledge.network={{ name = "{teacher.network.name}"{network} }}',
        f"knowledge.seed={teacher.seed + 1}",
        *(f"knowledge.{name}={json.dumps(value)}" for name, value in values.items()),
    ]


def _outcome(name: str, results: Sequence[Result]) -> Outcome:
    settings = "" if name == LABELS else learnt(results[0]).removeprefix(name).strip(" ()")
    return Outcome(name, settings, tuple(result.metrics["top1"] for result in results))


def main() -> None:
    """Runs what is missing, prints the table and keeps it, with the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="of every student; the recipe's by default")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/objectives"), help="where everything is kept"
    )
    options = parser.parse_args()
    overrides = [] if options.epochs is None else [f"student.epochs={options.epochs}"]
    outcomes = measure(options.folder, options.seeds, overrides)
    table = markdown(outcomes)
    write_atomically(options.folder / "objectives.md", f"{table}\n".encode())
    figures = json.dumps([asdict(outcome) for outcome in outcomes], indent=2)
    write_atomically(options.folder / "objectives.json", figures.encode())
    print(f"{table}\nmade {options.folder / 'objectives.md'} and objectives.json")


if __name__ == "__main__":
    main()
