"""Recipes small enough for a test, and what they make."""

from __future__ import annotations

from pathlib import Path

import torch

from decant.cache import LogitCache, Store
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import Result

CPU = torch.device("cpu")
VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')
SETTINGS = ("teacher.network.width=4", "teacher.epochs=3", "student.epochs=2", "student.seeds=1")


def recipe(*overrides: str) -> Recipe:
    """The digits recipe with two epochs a network."""
    return load_recipe("digits", [*SETTINGS, *overrides])


def plan(folder: Path, *overrides: str) -> Plan:
    """The plan of `recipe(*overrides)`, with runs in `folder/runs` and caches in `folder/caches`."""
    return Plan.of(recipe(*overrides), folder / "runs", Store(folder / "caches"))


def teach(folder: Path, *overrides: str) -> Result:
    """The finished teacher of `recipe(*overrides)` in `folder/runs`."""
    return make_teacher(plan(folder, *overrides), CPU)[0]


def build_cache(folder: Path, *overrides: str) -> LogitCache:
    """Its cache in `folder/caches`; the teacher is made first."""
    planned = plan(folder, *overrides)
    make_teacher(planned, CPU)
    return cache_logits(planned, CPU, print).cache


def students(folder: Path, *overrides: str, check_inputs: str = "all") -> list[Result]:
    """Every network of phase two, labels-only first."""
    made = train_students(
        plan(folder, *overrides),
        CPU,
        check_inputs=check_inputs,  # type: ignore[arg-type]
    )
    return [result for result, _ in made]
