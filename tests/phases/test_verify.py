"""A cache held against its teacher differs by rounding and no more, and a wrong one by much more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCacheWriter, Store
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.verify import compare_with_teacher
from tests.helpers.small import CPU, build_cache, recipe, teach

VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


def test_a_cache_differs_from_its_teacher_by_rounding_to_float16_and_no_more(tmp_path: Path) -> None:
    build_cache(tmp_path, *VIEWS)
    found = compare_with_teacher(
        Plan.of(recipe(*VIEWS), tmp_path / "runs", Store(tmp_path / "caches")), 1000, CPU
    )
    assert found.rows == 1000
    assert 0 < found.largest <= found.rounding + 1e-5, found
    assert found.agrees


def test_logits_in_the_wrong_order_are_seen(tmp_path: Path) -> None:
    teach(tmp_path)
    plan = Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches"))
    manifest = plan.manifest
    with plan.store.building(manifest) as path, LogitCacheWriter(path, manifest) as writer:
        wrong = np.random.default_rng(0).normal(size=(manifest.num_samples, 10)).astype(np.float32)
        writer.write(np.arange(manifest.num_samples), wrong)
        writer.publish()
    found = compare_with_teacher(plan, 50, CPU)
    assert found.largest > 100 * found.rounding
    assert not found.agrees


def test_without_a_cache_the_command_is_named(tmp_path: Path) -> None:
    teach(tmp_path)
    with pytest.raises(NotMadeError, match="run: decant cache-logits"):
        compare_with_teacher(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), 5, CPU)
