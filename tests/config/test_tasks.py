"""Figures as a person reads them: shares in percent, errors as they are, and a dash where there is none."""

from __future__ import annotations

import pytest

from decant.pipeline.config.tasks import FORMATS, MetricFormat, formats, headline

TOP1, R2 = FORMATS["classification"][0], FORMATS["regression"][0]


def test_each_task_has_a_figure_that_its_networks_are_compared_by() -> None:
    assert headline({"top1": 0.9, "loss": 0.3}) == TOP1
    assert headline({"r2": 0.4, "mse": 0.6, "mae": 0.5}) == R2
    assert headline({"mse": 0.6, "mae": 0.5}) == R2, "R² of targets that do not vary is not known"
    assert headline({}) == TOP1
    assert [figure.name for figure in formats({"mse": 0.0})] == ["R²", "MSE", "MAE"]


@pytest.mark.parametrize(
    ("figure", "text", "with_spread", "gain", "axis"),
    [
        (TOP1, "34.56 %", "34.56 ± 1.20 %", "-1.20 points", "top-1, %"),
        (R2, "0.3456", "0.3456 ± 0.0120", "-0.0120 R²", "R²"),
    ],
)
def test_a_figure_in_words(figure: MetricFormat, text: str, with_spread: str, gain: str, axis: str) -> None:
    assert figure.text({figure.key: 0.34559}) == text
    assert figure.with_spread(0.34559, 0.012) == with_spread
    assert figure.difference(-0.012) == gain
    assert figure.difference(0.012) == gain.replace("-", "+")
    assert figure.axis == axis


def test_what_is_not_known_is_a_dash() -> None:
    assert TOP1.text({}) == R2.text({"r2": None}) == "–"
    assert R2.value({"mse": 1.0}) is None
