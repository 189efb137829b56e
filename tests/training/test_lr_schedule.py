"""The learning rate: its ends, its joints and its milestones, against each schedule written out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from decant.pipeline.config.settings import StudentSettings
from decant.pipeline.training.lr_schedule import learning_rate

STEPS = 100  # an epoch


def settings(**values: Any) -> StudentSettings:
    content = {"network": "conv", "epochs": 10, "lr": 0.4, **values}
    return StudentSettings.model_validate_json(json.dumps(content))


def rates(given: StudentSettings, steps_per_epoch: int = STEPS) -> list[float]:
    return [learning_rate(step, steps_per_epoch, given) for step in range(given.epochs * steps_per_epoch)]


SCHEDULES: list[dict[str, Any]] = [
    {"schedule": "constant"},
    {"schedule": "cosine"},
    {"schedule": "one-cycle"},
    {"schedule": "step", "milestones": [4, 7]},
    {"schedule": "constant", "warmup_epochs": 1},
    {"schedule": "cosine", "warmup_epochs": 2.5},
    {"schedule": "step", "milestones": [4, 7], "warmup_epochs": 0.5},
]


@pytest.mark.parametrize("values", SCHEDULES)
def test_the_rate_is_positive_never_above_lr_and_reaches_it(values: dict[str, Any]) -> None:
    found = rates(settings(**values))
    assert min(found) > 0
    assert max(found) == pytest.approx(0.4, rel=1e-4)
    assert max(found) <= 0.4


@pytest.mark.parametrize("values", SCHEDULES)
def test_the_rate_moves_in_small_steps_but_at_milestones(values: dict[str, Any]) -> None:
    given = settings(**values)
    found = rates(given)
    jumps = [step for step in range(1, len(found)) if abs(found[step] - found[step - 1]) > 0.02 * given.lr]
    assert jumps == ([400, 700] if given.milestones else [])


def test_warm_up_rises_on_a_line_from_its_first_step() -> None:
    found = rates(settings(schedule="cosine", warmup_epochs=2))[: 2 * STEPS + 1]
    assert found == pytest.approx([0.4 * (step + 1) / 201 for step in range(201)])


def test_warm_up_may_end_within_an_epoch() -> None:
    found = [learning_rate(step, 3, settings(schedule="constant", warmup_epochs=0.5)) for step in range(4)]
    assert found == pytest.approx([0.4 * 1 / 2.5, 0.4 * 2 / 2.5, 0.4, 0.4])


def test_step_multiplies_by_gamma_from_the_first_step_of_each_milestone() -> None:
    given = settings(schedule="step", milestones=[4, 7], gamma=0.2)
    for step, expected in [(0, 0.4), (399, 0.4), (400, 0.08), (699, 0.08), (700, 0.016), (999, 0.016)]:
        assert learning_rate(step, STEPS, given) == pytest.approx(expected), f"step {step}"


@pytest.mark.parametrize("warmup", [0, 2])
def test_cosine_is_half_a_cosine_over_what_warm_up_leaves(warmup: int) -> None:
    given = settings(schedule="cosine", warmup_epochs=warmup)
    first = warmup * STEPS
    for step in range(first, 1000):
        share = (step - first) / (1000 - first)
        assert learning_rate(step, STEPS, given) == pytest.approx(0.2 * (1 + math.cos(math.pi * share)))
    assert learning_rate(first, STEPS, given) == 0.4
    assert learning_rate(1000, STEPS, given) == 0.0


def test_one_cycle_rises_for_three_tenths_and_falls_to_nothing() -> None:
    given = settings(schedule="one-cycle")
    found = rates(given)
    assert found[0] == pytest.approx(0.04 * 0.4)
    assert found[300] == 0.4
    assert found[:301] == sorted(found[:301])
    assert found[300:] == sorted(found[300:], reverse=True)
    assert found[150] == pytest.approx(0.4 * (0.04 + 0.96 / 2)), "half way up"
    assert found[650] == pytest.approx(0.2), "half way down"
    assert found[-1] < 1e-4 * 0.4


@pytest.mark.parametrize("values", SCHEDULES)
def test_the_shape_does_not_depend_on_the_steps_of_an_epoch(values: dict[str, Any]) -> None:
    given = settings(**values)
    few, many = rates(given, 20), rates(given, 200)
    assert few == pytest.approx(many[::10], abs=0.1 * given.lr)
