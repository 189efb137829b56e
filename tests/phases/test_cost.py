"""The cost of a cache is estimated from a few batches, and nothing is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.cache import Store
from decant.pipeline.phases.cost import estimate, time_teacher
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.runs.saved_network import load_network
from tests.helpers.small import CPU, build_cache, recipe, teach

VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


def test_an_estimate_does_no_work_and_knows_the_size(tmp_path: Path) -> None:
    teach(tmp_path, *VIEWS)
    cost = estimate(Plan.of(recipe(*VIEWS), tmp_path / "runs", Store(tmp_path / "caches")), CPU)
    assert not cost.exists
    assert not list(tmp_path.glob("caches/*"))
    assert cost.seconds > 2 * cost.live_seconds_an_epoch > 0, (
        "a student loads its inputs with or without a teacher"
    )
    assert cost.pays_after_epochs == pytest.approx(cost.seconds / cost.live_seconds_an_epoch)
    made = build_cache(tmp_path, *VIEWS)
    assert 0 < made.path.stat().st_size - cost.bytes < 100_000  # the header, and the gaps up to a page
    assert estimate(Plan.of(recipe(*VIEWS), tmp_path / "runs", Store(tmp_path / "caches")), CPU).exists


def test_timing_the_teacher_runs_a_few_batches_of_the_caches_size(tmp_path: Path) -> None:
    options = (*VIEWS, "cache.batch_size=100")
    network = load_network(teach(tmp_path, *options))
    seen: list[int] = []
    network.register_forward_hook(lambda module, inputs, outputs: seen.append(len(outputs)))
    viewed = Splits.load(recipe(*options).settings).student_train
    found = time_teacher(network, viewed, recipe(*options).settings.cache, CPU, batches=3)
    assert seen == [100] * 4
    assert found.loading > 0
    assert found.computing > 0
