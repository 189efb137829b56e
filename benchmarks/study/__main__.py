"""Trains one student in every way, with several seeds and two schedules; prints the table, keeps it as JSON and as a
picture.

A network that is finished is found again, so that a study that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.study import figure, table
from benchmarks.study.arms import Arm, LiveTeacher, arms
from decant.cache import Store
from decant.cache.io.files import write_atomically
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.job import MeasuredOn, load_result_on, train_network
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_logits import load_test_logits

CPU = torch.device("cpu")
HERE = Path(__file__).parent


def main() -> None:
    """Runs the study of a recipe."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--recipe")
    found, words = first.parse_known_args()
    if found.recipe == "language-model":
        from benchmarks.study.language import command

        command.main(words)
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument(
        "--recipe",
        default="digits",
        help="digits, cifar10 (beside this file), a .toml file, or language-model, which has options of its own",
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides")
    parser.add_argument(
        "--views", nargs="+", default=["1", "4", "16", "64", "all"], help="values of views.count"
    )
    parser.add_argument(
        "--encodings",
        nargs="+",
        default=[],
        help="compact caches beside each: dense-u8, sparse-K, draws-K",
    )
    parser.add_argument(
        "--equal-bytes",
        action="store_true",
        help="each of the encodings also with as many views as the cache of every logit has bytes for",
    )
    parser.add_argument("--patience", type=int, default=5, help="how many times longer the long schedule is")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where runs, caches and results go")
    options = parser.parse_args()
    if options.patience < 1:
        parser.error(f"--patience: expected 1 or more, found {options.patience}")
    own = HERE / f"{options.recipe}.toml"
    recipe = load_recipe(str(own) if own.is_file() else options.recipe, options.overrides)
    counts = tuple(word if word == "all" else int(word) for word in options.views)
    encodings = tuple(options.encodings)
    made = measure(
        recipe, counts, options.patience, options.out / f"study-{recipe.name}", encodings, options.equal_bytes
    )
    print(table.markdown(made))
    path = options.out / f"study-{recipe.name}.json"
    write_atomically(path, json.dumps(made, indent=1).encode())
    figure.draw([made], path.with_suffix(".png"))
    print(f"made {path} and {path.with_suffix('.png')}")


def measure(
    recipe: Recipe,
    counts: tuple[int | str, ...],
    patience: int,
    base: Path,
    encodings: tuple[str, ...] = (),
    equal_bytes: bool = False,
) -> dict[str, Any]:
    """Every figure of the study of a recipe, as plain JSON."""
    store, splits = Store(base / "caches"), Splits.load(recipe.settings)
    teacher, _ = make_teacher(Plan.of(recipe, base), CPU)
    on_test = torch.from_numpy(
        load_test_logits(teacher.folder, len(splits.test), teacher.network.num_classes)
    )
    settings, kept = recipe.settings.student, _Kept(base / "study.jsonl")
    schedules = {"short": settings.epochs, **({"long": settings.epochs * patience} if patience > 1 else {})}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        for schedule, epochs in schedules.items():
            student = settings.model_copy(update={"seed": seed, "epochs": epochs})
            chosen = Recipe(recipe.name, recipe.settings.model_copy(update={"student": student}))
            for arm in arms(chosen, counts, base, store, teacher, encodings, equal_bytes):
                measured = MeasuredOn(splits.test, teacher_logits=on_test)
                found = load_result_on(arm.job.folder, measured, CPU)
                result = found or train_network(arm.job, chosen, measured, CPU)[0]
                kept.add(str(arm.job.folder), _run(arm, result, schedule, epochs), new=found is None)
    return {
        "recipe": recipe.name,
        "samples": len(splits.student_train),
        "student": str(settings.network),
        "teacher": {
            "network": str(teacher.network),
            "top1": teacher.metrics["top1"],
            "seconds": teacher.seconds,
        },
        "machine": {
            "date": datetime.now(UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "versions": {name: version(name) for name in ("torch", "numpy")},
        },
        "runs": kept.runs,
    }


class _Kept:
    """What each run cost is known only when it is made, and so is kept for a study that goes on later."""

    def __init__(self, path: Path) -> None:
        self.path, self.runs = path, list[dict[str, Any]]()
        lines = path.read_text().splitlines() if path.is_file() else []
        self._earlier = dict(json.loads(line) for line in lines)

    def add(self, name: str, run: dict[str, Any], new: bool) -> None:
        """Takes what an earlier call found of the same run, or writes down what this one did."""
        if new or name not in self._earlier:
            with self.path.open("a") as file:
                file.write(json.dumps([name, run]) + "\n")
            self._earlier[name] = run
        # A run may have been another way's or schedule's then, as "9" and "all" views are of nine.
        self.runs.append({**self._earlier[name], "arm": run["arm"], "schedule": run["schedule"]})
        print(json.dumps(self.runs[-1]), flush=True)


def _run(arm: Arm, result: Result, schedule: str, epochs: int) -> dict[str, Any]:
    cache = arm.cached.cache if arm.cached else None
    return {
        "arm": arm.name,
        "schedule": schedule,
        "epochs": epochs,
        "seed": result.seed,
        "top1": result.metrics["top1"],
        "agreement": result.metrics["agreement"],
        "seconds": result.seconds,
        "views": cache.num_views if cache else None,
        "bytes": cache.path.stat().st_size if cache else None,
        "cache_seconds": arm.cached.seconds if arm.cached else None,
        "cache_rows": arm.cached.rows if arm.cached else None,
        "live_seconds": arm.job.data.seconds if isinstance(arm.job.data, LiveTeacher) else None,
    }


if __name__ == "__main__":  # a process beside this one imports the module
    main()
