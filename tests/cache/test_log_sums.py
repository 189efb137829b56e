"""The largest of many logits are those that a sort of all of them finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decant.cache import Sparse
from decant.cache.encodings import log_sums, sparse
from decant.cache.encodings.log_sums import largest_places

ROWS = 7


def by_sorting(logits: Any, count: int) -> Any:
    return np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :count], axis=1)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("outputs", [1, 64, 127, 128, 4_100, 5_003])
@pytest.mark.parametrize("count", [1, 64])
def test_groups_leave_none_of_the_largest_out(outputs: int, count: int, dtype: str) -> None:
    count = min(count, outputs)
    drawn = 3 * np.random.default_rng(outputs).standard_normal((ROWS, outputs))
    for logits in (
        drawn,
        np.round(drawn),  # most of them equal
        np.where(drawn > 6, drawn, 1.0),  # equal ones among the largest of groups
        np.sort(drawn, axis=1),
        np.zeros_like(drawn),
    ):
        values = logits.astype(dtype)
        assert np.array_equal(largest_places(values, count), by_sorting(values, count))


def test_where_many_are_left_all_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = 40 * log_sums._GROUP
    logits = np.random.default_rng(0).standard_normal((ROWS, outputs)).astype("f4")
    logits[2, :: outputs // log_sums._GROUP] += 50  # the largest of one group alone
    expected = by_sorting(logits, 16)
    for times in (8, 0):
        monkeypatch.setattr(log_sums, "_MOST_TIMES", times)
        assert np.array_equal(largest_places(logits, 16), expected)


@pytest.mark.parametrize("encoding", [Sparse(3), Sparse(2, (0.5, 1.0, 4.0), draws=3)], ids=str)
def test_rows_that_are_encoded_some_at_a_time_have_the_same_bytes(
    encoding: Sparse, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = np.random.default_rng(1).standard_normal((ROWS, 300)).astype("f4")
    logits[3, 200] = 900  # whose others are lost to underflow
    found = []
    for at_once in (ROWS, 3, 1):
        monkeypatch.setattr(sparse, "_CHUNK", 300 * at_once)
        rows = encoding.encode(logits, np.arange(ROWS), 0)
        found.append({name: value.tobytes() for name, value in rows.items()})
    assert found[0] == found[1] == found[2]
