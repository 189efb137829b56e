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


def test_ranks_share_the_rows_and_each_reads_what_it_needs(tmp_path: Path) -> None:
    options = (*VIEWS, "cache.batch_size=100")
    teach(tmp_path, *options)
    plan = Plan.of(recipe(*options), tmp_path / "runs", Store(tmp_path / "caches"))
    found = estimate(plan, CPU, ranks=4).ranks
    assert found is not None
    assert (found.ranks, found.working) == (4, 4)
    assert 2 * 1437 / 4 <= found.rows <= 2 * 1437 / 4 + 100, "a unit more than its share at most"
    assert found.reads == 1437 * 64, "images in memory are loaded whole by each rank"
    assert found.writes == pytest.approx(found.rows * (20 + 8 / 2 + 4), rel=0.01)
    assert found.seconds > 0


def test_more_ranks_than_runs_of_rows_are_counted(tmp_path: Path) -> None:
    teach(tmp_path, "cache.batch_size=500")
    plan = Plan.of(recipe("cache.batch_size=500"), tmp_path / "runs", Store(tmp_path / "caches"))
    found = estimate(plan, CPU, ranks=10).ranks
    assert found is not None
    assert (found.working, found.rows) == (3, 500)
