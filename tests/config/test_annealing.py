"""Numbers that change while a student trains."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w

from decant.pipeline.config.annealing import Scheduled, at
from decant.pipeline.config.recipe import load_recipe


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_begins_and_ends_where_it_says(schedule: Any) -> None:
    value = Scheduled(**{"from": 8.0, "to": 2.0}, schedule=schedule)
    assert (value.at(0.0), value.at(0.5), value.at(1.0)) == pytest.approx((8.0, 5.0, 2.0))
    assert value.at(0.25) == pytest.approx({"linear": 6.5, "cosine": 8 - 6 * 0.1464466094}[schedule])
    assert (at(value, 1.0), at(3.0, 1.0), at("kl", 1.0)) == (2.0, 3.0, "kl")


def test_a_number_stays_a_number_and_a_schedule_a_table_in_the_resolved_recipe() -> None:
    recipe = load_recipe("digits", ["student.objective.temperature={from=8, to=2.5}"])
    found = recipe.settings.model_dump(mode="json", by_alias=True)["student"]["objective"]
    assert found == {
        "name": "kd",
        "alpha": 0.9,
        "temperature": {"from": 8.0, "to": 2.5, "schedule": "linear"},
    }
    assert tomli_w.dumps({"objective": found}) in recipe.to_toml().replace("student.objective", "objective")
