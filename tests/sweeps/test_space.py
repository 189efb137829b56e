"""What is varied: lists and ranges of settings, checked against the recipe before anything runs."""

from __future__ import annotations

import pytest

from decant.pipeline.errors import RecipeError
from decant.pipeline.sweeps.space import Choices, Range, grid, overrides_of, parse_over, parse_space
from tests.helpers.small import recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("student.lr=log:1e-3..0.3", Range("student.lr", 0.001, 0.3, log=True)),
        ("student.objective.alpha=0..1", Range("student.objective.alpha", 0.0, 1.0)),
        ("student.objective=kd, dkd", Choices("student.objective", ("kd", "dkd"))),
        ('cache.from=a.h5,["a.h5", "b.h5"]', Choices("cache.from", ("a.h5", '["a.h5", "b.h5"]'))),
        (
            'student.network={name="mlp", hidden=8},linear',
            Choices("student.network", ('{name="mlp", hidden=8}', "linear")),
        ),
        ("student.clip_norm='a,b',c", Choices("student.clip_norm", ("'a,b'", "c"))),
    ],
)
def test_a_setting_is_a_list_or_a_range(text: str, expected: object) -> None:
    assert parse_over(text) == expected


def test_a_range_of_whole_numbers_has_none_between_where_its_setting_takes_none() -> None:
    epochs, temperature = parse_space(["student.epochs=2..9", "student.objective.temperature=1..8"], recipe())
    assert isinstance(epochs, Range)
    assert epochs.whole
    assert epochs.ends == ("2", "9")
    assert isinstance(temperature, Range)
    assert not temperature.whole


def test_arguments_of_a_network_are_whole_numbers_where_they_are_written_so() -> None:
    over = ["student.network.hidden=8..64", "student.network.layers=log:1.0..4.0"]
    hidden, layers = parse_space(over, recipe())
    assert (hidden, layers) == (
        Range("student.network.hidden", 8, 64, whole=True),
        Range("student.network.layers", 1, 4, log=True),
    )
    assert [str(setting) for setting in (hidden, layers)] == over


def test_a_table_goes_before_a_key_of_it() -> None:
    over = ["student.network.hidden=8,16", "student.network=mlp,{name='mlp', layers=2}"]
    space = parse_space(over, recipe())
    assert [setting.path for setting in space] == ["student.network", "student.network.hidden"]
    assert len(grid(space)) == 4
    assert overrides_of(space, ("mlp", "8")) == ("student.network=mlp", "student.network.hidden=8")


def test_numbers_are_drawn_to_four_digits_that_a_command_can_repeat() -> None:
    assert Range("student.lr", 1e-6, 1.0).text(0.000123456) == "0.0001235"
    assert Range("student.epochs", 1, 9, whole=True).text(3.0) == "3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("student.lr", "expected section.key=VALUES, as in student.lr=log:0.01..0.3"),
        ("student.temprature=1,2", "student.temprature: unknown key"),
        (
            "student.lr=0.3..0.01",
            "--over student.lr: 0.3..0.01: an empty range; the smaller number goes first",
        ),
        ("student.lr=0.1..0.1", "an empty range"),
        ("student.lr=" + ",".join(map(str, range(1001))), "1,001 values; give a range, as 1..1001"),
        ("student.lr=log:0..1", "a logarithmic range begins above 0"),
        ("student.lr=0.1", "--over student.lr: 1 value; a choice is of two or more, a,b"),
        ("student.lr=", "--over student.lr: 0 value"),
        ("student.lr=0.1,0.2,0.1", "0.1 is there twice"),
        ("student.lr=log:a..b", "expected two numbers, as in log:0.01..0.3 or 1..8"),
        ("student.lr=-1..1", "student.lr: expected a number above 0, found -1"),
        ("student.objective.alpha=0.5,1.5", "student.objective.alpha=1.5"),
        ("student.objective=kd,dkdd", "unknown objective 'dkdd'; did you mean dkd"),
        ("student.momentum=0.5,quick", "student.momentum: expected a number at least 0 and below 1"),
        ("views.count=2,4", "settings of [views] ask for another cache"),
        ("teacher.lr=0.1,0.2", "settings of [teacher] ask for another cache"),
        ("data.validation=0.1,0.2", "settings of [data] ask for another cache"),
        ("cache.dtype=float16,float32", "settings of [cache] ask for another cache"),
        ("student.seed=1,2", "is not varied: every trial has the recipe's"),
        ("student.baseline=true,false", "the baseline is swept too, over its own learning rate"),
        ("student.log_every=1,2", "changes nothing that is learned"),
    ],
)
def test_what_cannot_be_varied_is_named(text: str, said: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_space([text], recipe())
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_that_do_not_go_together_are_named() -> None:
    with pytest.raises(
        RecipeError, match=r"--over student\.objective=mse, student\.objective\.temperature=1"
    ):
        parse_space(["student.objective=kd,mse", "student.objective.temperature=1,2"], recipe())
    with pytest.raises(RecipeError, match="is there twice"):
        parse_space(["student.lr=1,2", "student.lr=3,4"], recipe())


def test_a_grid_has_lists_alone() -> None:
    with pytest.raises(RecipeError, match=r"a grid has lists alone; give the values, as student\.lr=a,b,c"):
        grid([parse_over("student.lr=0.1..0.2")])
