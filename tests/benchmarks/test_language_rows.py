"""The rows of `make bench` that are of language models, small."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from benchmarks import language_phase_one, language_students
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Unit
from tests.helpers.extras import needs


class TestRows:
    pytestmark = needs("transformers")

    def test_each_has_its_figure(self, tmp_path: Path) -> None:
        conditions = Conditions(tmp_path, quick=True, seed=7)
        rows = [
            *language_phase_one.measure(conditions),
            *language_students.against_labels(conditions),
            *language_students.against_live(conditions),
        ]
        assert [row.row for row in rows] == [28, 28, 29, 29, 29, 29, 30]
        for row in rows:
            assert 0 < row.found < 100, row
            assert row.details["seconds"] > 0, row
            if row.unit is Unit.TIME:
                assert row.found == pytest.approx(row.details["seconds"] / row.details["against_seconds"])
            if row.unit is Unit.PART:
                assert row.found < 1, row
        parts = rows[-1].details
        possible = 1 + parts["forward_seconds"] / parts["step_seconds"]
        assert rows[-1].found == pytest.approx(parts["seconds"] / parts["cached_seconds"] / possible)


@pytest.mark.parametrize(
    "measure",
    [language_phase_one.measure, language_students.against_labels, language_students.against_live],
)
def test_without_transformers_they_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: object
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LeftOut, match=r"^transformers: not installed; run: pip install"):
        list(measure(Conditions(tmp_path, quick=True, seed=7)))  # type: ignore[operator]
