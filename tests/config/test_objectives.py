"""Objectives as a recipe writes them: names, schedules, functions of one's own, what is refused, what is listed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner

from decant.pipeline.cli.main import decant
from decant.pipeline.config.annealing import Scheduled, at
from decant.pipeline.config.catalogue import catalogue
from decant.pipeline.config.objectives import BUILTIN, Custom, name_of, names_for
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import RecipeError

NAMES = [name_of(kind) for kind in BUILTIN]


def objective(*overrides: str) -> Any:
    return load_recipe(
        "digits", [f"student.objective{override}" for override in overrides]
    ).settings.student.objective


def refusal(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        objective(*overrides)
    return str(caught.value).removeprefix("digits: student.objective.")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_takes_the_defaults_and_reads_back(name: str, tmp_path: Any) -> None:
    second = ["knowledge.network=conv", "knowledge.epochs=1"] if name == "general" else []
    recipe = load_recipe("digits", [f"student.objective={name}", *second])
    assert recipe.settings.student.objective.name == name
    (tmp_path / "again.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.toml")).settings == recipe.settings


def test_a_switch_that_is_off_leaves_a_run_its_name_and_one_that_is_on_does_not() -> None:
    assert "standardize" not in objective("=kd").model_dump()
    assert objective("=kd", ".standardize=true").model_dump()["standardize"] is True
    assert objective("=kd", ".alpha=0.0").model_dump()["alpha"] == 0.0
    assert objective("=kd", ".class_weights=[1, 0.5]").class_weights == (1.0, 0.5)


def test_ones_own_function_keeps_its_arguments() -> None:
    found = objective("=my.losses:focal", ".gamma=2", ".mean=false")
    assert isinstance(found, Custom)
    assert (found.name, found.args) == ("my.losses:focal", {"gamma": 2, "mean": False})
    assert found.model_dump() == {"name": "my.losses:focal", "gamma": 2, "mean": False}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ["=kdd"],
            "name: unknown objective 'kdd'; did you mean kd or nkd or dkd? (or package.module:function)",
        ),
        (["=dkd", ".alpha=-1"], "alpha: expected a number at least 0, found -1"),
        (["=dkd", ".temperature=0"], "temperature: expected a number above 0, found 0"),
        (["=kd", ".alpha={from=1, to=2}"], "alpha.to: must be less than or equal to 1, found 2"),
        (["=kd", ".temperature={from=0, to=2}"], "temperature.from: must be greater than 0, found 0"),
        (["=kd", ".alpha={from=1}"], "alpha.to: missing"),
        (
            ["=kd", ".alpha={from=1, to=0, how=1}"],
            "alpha.how: unknown key; known: from, schedule, to",
        ),
        (
            ["=kd", '.alpha={from=1, to=0, schedule="step"}'],
            'alpha.schedule: expected one of linear, cosine, found "step"',
        ),
        (["=mse", ".standardize=true"], "standardize: unknown key; known: alpha, name"),
        (["=kd", ".standardize=1"], "standardize: expected true or false, found 1"),
        (["=kd", ".class_weights=2"], 'class_weights: expected "balanced" or a list, found 2'),
        (["=kd", ".class_weights=[1, -2]"], "class_weights[1]: expected a number at least 0, found -2"),
        (["=general", ".teacher_divergence=js"], 'teacher_divergence: expected one of kl, ce, found "js"'),
    ],
)
def test_a_mistake_is_named_with_its_path(overrides: list[str], says: str) -> None:
    assert refusal(*overrides) == says


def test_each_objective_is_of_one_task() -> None:
    assert names_for("regression") == ["regression"]
    assert [*names_for("classification"), "regression"] == NAMES


# Numbers that change while a student trains


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


# The list of them


def test_the_command_lists_every_objective_with_its_formula_and_defaults() -> None:
    shown = CliRunner().invoke(decant, ["objectives"], catch_exceptions=False, terminal_width=200).output
    for entry in catalogue():
        assert f"\n  {entry.name} " in shown
    assert "alpha 0.9" in shown
    kinds = {kind.__name__ for kind in BUILTIN}
    assert len(kinds) == len({entry.formula for entry in catalogue()}) - 1


def test_a_program_is_told_the_defaults_as_values() -> None:
    done = CliRunner().invoke(decant, ["objectives", "--json"], catch_exceptions=False)
    told = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert told.keys() == {entry.name for entry in catalogue()}
    kd = [("alpha", 0.9), ("temperature", 4.0), ("standardize", False)]
    assert list(told["kd"]["defaults"].items()) == kd, "its own first"
    assert told["package.module:function"]["defaults"] == {}
    assert all(entry["formula"] and entry["use"] and entry["source"] for entry in told.values())


def test_the_list_imports_nothing_heavy() -> None:
    script = (
        "import sys, decant.pipeline.config.catalogue as c; c.catalogue(); "
        "print({'torch', 'numpy', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
