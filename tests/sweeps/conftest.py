"""A teacher and a cache that the sweeps of a module share, and a sweep in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from decant.pipeline.config.recipe import overridden
from decant.pipeline.phases.plan import Plan
from decant.pipeline.sweeps.definition import Sweep
from tests.helpers.small import build_cache, plan

HELD_OUT = (
    *("data.validation=0.2", "teacher.batch_size=256", "student.batch_size=256", "student.epochs=3"),
    *("student.network.hidden=8", "student.evaluate_every=1"),
)

Planned = Callable[..., Sweep]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    build_cache(folder, *HELD_OUT)
    return folder


def planned(base: Path, *overrides: str, over: tuple[str, ...], **sweep: object) -> Sweep:
    """The sweep of the small recipe over these settings."""
    given = {"trials": 4, "seeds": 2, **sweep}
    words = [f"sweep.over={list(over)}", *(f"sweep.{key}={value}" for key, value in given.items())]
    plain = plan(base, *HELD_OUT, *overrides)
    return Sweep.of(Plan.of(overridden(plain.recipe, words), plain.base, plain.store))
