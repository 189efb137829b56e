"""Objectives as modules: what the functions return, settings that are checked, and nothing in a checkpoint."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import decant
from decant import objectives
from decant.objectives import KD, Objective
from decant.pipeline.config.objectives import BUILTIN

MODULES: dict[str, Any] = {
    name: value
    for name in objectives.__all__
    if isinstance(value := getattr(objectives, name), type) and issubclass(value, Objective)
    if not issubclass(value, objectives.SparseObjective) and value is not Objective
}
STUDENT, TEACHER = torch.randn(2, 8, 4, generator=torch.manual_seed(0))
LABELS = TEACHER.argmax(1)
OTHER = {"class_weights": [1.0, 2.0, 3.0, 4.0], "standardize": True, "label_smoothing": 0.25}


def batch(name: str) -> tuple[Tensor, Tensor, Tensor]:
    teacher = torch.stack([TEACHER, TEACHER.flip(0)], 1) if name == "General" else TEACHER
    if name == "Regression":
        return STUDENT, teacher, STUDENT.flip(1)
    return STUDENT, teacher, (TEACHER > 0).float() if name.startswith("Sigmoid") else LABELS


def chosen(module: Any) -> dict[str, Any]:
    """Every setting at another value than its default."""
    found = {}
    for name, parameter in inspect.signature(module).parameters.items():
        divergence = "ce" if parameter.default == "kl" else None
        found[name] = OTHER.get(name) or divergence or parameter.default * 0.75
    return found


def test_every_objective_that_ships_is_a_module_too() -> None:
    functions = {f"{kind.function}" for kind in BUILTIN} | {
        kind.sigmoid_function for kind in BUILTIN if kind.sigmoid_function
    }
    found = {
        f"{module.function.__module__.rpartition('.')[2]}:{module.function.__name__}"
        for module in MODULES.values()
    }
    assert found == functions
    assert all(module.__name__ == name for name, module in MODULES.items())


@pytest.mark.parametrize("name", MODULES)
def test_a_module_returns_what_its_function_returns(name: str) -> None:
    module = MODULES[name]
    for settings in ({}, chosen(module)):
        found = module(**settings)(*batch(name))
        expected = module.function(*batch(name), **settings)
        assert type(found) is objectives.Terms
        assert found == expected
    assert module()(*batch(name)).total != module(**chosen(module))(*batch(name)).total


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_copied_pickled_and_written_as_it_was_made(name: str) -> None:
    module = MODULES[name]
    for loss in (module(), module(**chosen(module))):
        copies = [copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), eval(repr(loss), dict(MODULES))]
        assert [repr(one) for one in copies] == [repr(loss)] * 3
        assert copies[1](*batch(name)) == loss(*batch(name))


def test_a_module_adds_nothing_to_the_checkpoint_of_its_network() -> None:
    plain, holding = nn.Linear(2, 2), nn.Linear(2, 2)
    holding.loss = KD(class_weights=[1.0, 2.0])
    holding.load_state_dict(plain.state_dict())
    assert holding.state_dict().keys() == plain.state_dict().keys()
    assert not list(holding.loss.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": 2}, "KD: alpha: expected a number at least 0 and at most 1, found 2"),
        ({"alpha": float("nan")}, "KD: alpha: expected a number at least 0 and at most 1, found nan"),
        ({"temperature": 0}, "KD: temperature: expected a number above 0, found 0"),
        (
            {"temperature": {"from": 8.0, "to": 2.0}},
            "found a schedule, which recipes have; set the attribute",
        ),
        ({"class_weights": [-1.0]}, "KD: class_weights: expected a list, each a number at least 0, found"),
        ({"class_weights": "balanced"}, "found 'balanced', which recipes have; give the numbers"),
        (
            {"label_smoothing": 3.0},
            "KD: label_smoothing: expected a number at least 0 and at most 1, found 3",
        ),
        ({"standardize": 1}, "KD: standardize: expected true or false, found 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_when_it_is_given_and_when_it_is_set(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        KD(**settings)
    ((name, value),) = settings.items()
    loss = KD()
    with pytest.raises(ValueError, match=re.escape(said)):
        setattr(loss, name, value)
    assert getattr(loss, name) == getattr(KD(), name)


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    unknown: dict[str, Any] = {"temprature": 4.0}
    with pytest.raises(TypeError, match=r"KD: .*'temprature'; its settings are alpha, temperature"):
        KD(**unknown)


def test_a_setting_that_is_set_between_two_steps_counts_at_the_next() -> None:
    loss = KD(temperature=8.0)
    loss.temperature = 2.0
    assert loss(*batch("KD")) == objectives.kd(*batch("KD"), temperature=2.0)


def test_weights_of_samples_are_given_with_the_batch() -> None:
    weights = torch.arange(8.0)
    assert KD()(*batch("KD"), weights) == objectives.kd(*batch("KD"), sample_weights=weights)


def test_the_names_can_be_imported_from_decant_objectives() -> None:
    script = (
        "from decant.objectives import KD, kd\nfrom decant.encodings import Dense\nimport decant\n"
        "assert decant.objectives.KD is KD and decant.encodings.Dense is Dense\n"
        "assert decant.objectives.__name__ == 'decant.pipeline.objectives', decant.objectives\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert sys.modules["decant.objectives"] is decant.objectives
