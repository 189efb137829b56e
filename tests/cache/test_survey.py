"""What a survey of sizes says is what rows of these sizes leave out."""

from __future__ import annotations

import numpy as np
import pytest

from decant.cache import Sparse, SparseSurvey
from tests.cache.test_compact import softmax, teacher

TEMPERATURES = (1.0, 4.0)


def test_tails_are_those_of_the_rows() -> None:
    logits = teacher(60, 50)
    survey = SparseSurvey(TEMPERATURES, sizes=(4, 8, 50))
    survey.add(logits[:25])
    survey.add(logits[25:])
    found = list(survey)
    assert [(one.kept, one.temperature) for one in found] == [(4, 1.0), (4, 4.0), (8, 1.0), (8, 4.0)]
    for one in found:
        encoding = Sparse(one.kept, TEMPERATURES)
        rows = encoding.rows(encoding.encode(logits, np.arange(60), 0))
        tails = np.exp(rows.log_tail[:, TEMPERATURES.index(one.temperature)].astype("f8"))
        assert one.tail == pytest.approx(tails.mean(), rel=1e-5)
        assert one.tail_90 == pytest.approx(np.quantile(tails, 0.9), rel=1e-5)


@pytest.mark.parametrize("temperatures", [(1.0,), TEMPERATURES], ids=str)
def test_the_error_of_draws_is_that_of_many(temperatures: tuple[float, ...]) -> None:
    logits, count = teacher(1, 40), 20_000
    survey = SparseSurvey(temperatures, sizes=(6,))
    survey.add(logits)
    encoding = Sparse(0, temperatures, draws=6)
    rows = encoding.rows(encoding.encode(logits.repeat(count, 0), np.arange(count), 0))
    for one in survey:
        estimates = np.zeros((count, 40))
        np.put_along_axis(
            estimates, rows.ids.astype(int), np.exp(encoding.log_estimates(rows, one.temperature)), 1
        )
        error = np.square(estimates - softmax(logits, one.temperature)).sum(1).mean()
        assert one.draws_error == pytest.approx(np.sqrt(error), rel=0.03)
