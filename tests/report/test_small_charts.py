"""What charts and tables of few values show."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from decant.pipeline.report import charts, sweep_charts
from decant.pipeline.report.sections.tokens import _curve, _quoted


def test_learning_curves_name_the_states_that_there_are() -> None:
    points = [
        {"trial": 0, "epoch": 1, "value": 90.0, "state": "done"},
        {"trial": 1, "epoch": 1, "value": 91.0, "state": "best"},
    ]
    colour = sweep_charts.learning(points, "top-1").to_dict()["encoding"]["color"]
    assert colour["scale"]["domain"] == ["best", "done"]


def test_a_bin_of_few_samples_has_a_small_mark() -> None:
    points = [{"series": "teacher", "confidence": 0.5, "accuracy": 0.0, "count": 1}]
    *_, marks = charts.reliability(points, ["teacher"]).to_dict()["layer"]
    assert marks["encoding"]["size"]["field"] == "count"


def test_a_curve_by_place_has_twelve_points_and_none_of_the_last_place_alone() -> None:
    places = np.arange(37)
    points = _curve([SimpleNamespace(places=places)], [2.0 * places], "teacher")  # type: ignore[list-item]
    assert len(points) == 12
    assert (points[0]["x"], points[-1]["x"]) == (1.0, 34.5)
    assert all(point["y"] == 2 * point["x"] for point in points)


def test_a_line_break_is_shown_as_one_and_what_is_not_to_be_seen_by_its_name() -> None:
    class Tokenizer:
        def decode(self, ids: list[int]) -> str:
            return ["a", "\n\n", "\u202e"][ids[0]]

        def convert_ids_to_tokens(self, id_: int) -> str:
            return f"<{id_}>"

    assert [_quoted(Tokenizer(), id_) for id_ in range(3)] == ["“a”", "“\\n\\n”", "<2>"]
