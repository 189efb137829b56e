"""Curves over the epochs: what the lines of metrics.jsonl say, over the seeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.pipeline.config.tasks import FORMATS
from decant.pipeline.report import history
from decant.pipeline.report.sections.curves import points
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers.subjects import noted

TOP1 = FORMATS["classification"][0]


LOSS = next(one for one in history.quantities(TOP1) if one.key == "loss")


def test_a_curve_is_mean_lowest_and_highest_of_the_seeds_where_all_have_it(tmp_path: Path) -> None:
    losses = {0: [3.0, 2.0, 1.0, 0.5], 1: [5.0, 1.0, 4.0], 2: [1.0, 6.0, 1.0, 0.1]}
    runs = [
        noted(tmp_path / str(seed), [{"epoch": place + 1, "loss": loss} for place, loss in enumerate(some)])
        for seed, some in losses.items()
    ]
    found = history.curve(runs, LOSS)
    assert found == history.Curve((1, 2, 3), (3.0, 3.0, 2.0), (1.0, 1.0, 1.0), (5.0, 6.0, 4.0))


@pytest.mark.parametrize("count", [1, 2, 3, 999, 1000])
def test_a_curve_that_is_thinned_keeps_its_first_and_last_epoch(count: int) -> None:
    epochs = tuple(range(1, count + 1))
    values = tuple(map(float, epochs))
    thinned = list(history.Curve(epochs, values, values, values).thinned(10))
    assert len(thinned) == min(count, 10)
    assert thinned[0][0] == 1
    assert thinned[-1][0] == count
    steps = np.diff([epoch for epoch, *_ in thinned])
    assert np.ptp(steps) <= 1 if len(steps) else count == 1
    assert all(epoch == mean == low == high for epoch, mean, low, high in thinned)
    rounded = history.Curve((1,), (1 / 3,), (1e-9 / 3,), (123456.789,))
    (point,) = points({0: rounded}, 1)
    assert point == {"network": 0, "epoch": 1, "mean": 0.333333, "low": 3.33333e-10, "high": 123457.0}
    assert len(points({0: history.Curve(epochs, values, values, values)}, 0)) == min(count, 2)


def test_a_run_without_metrics_has_no_curve(tmp_path: Path) -> None:
    run = noted(tmp_path, [])
    assert history.curve([run], LOSS) is None
    (tmp_path / METRICS).unlink()
    assert history.curve([run], LOSS) is None


def test_epochs_whose_loss_is_no_number_are_left_out(tmp_path: Path) -> None:
    losses = [3.0, float("inf"), 2.0, float("nan"), None]
    run = noted(tmp_path, [{"epoch": place + 1, "loss": loss} for place, loss in enumerate(losses)])
    assert history.curve([run], LOSS) == history.Curve((1, 3), *([(3.0, 2.0)] * 3))
