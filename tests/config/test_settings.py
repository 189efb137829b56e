"""What a recipe may say: the range of every value, the combinations that cannot be, and that nothing changes later."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from decant.pipeline.config.augmentations import Flip, PadCrop
from decant.pipeline.config.cache_settings import EncodingSettings
from decant.pipeline.config.objectives import KD, CEPlusKL, LogitMSE, Objective
from decant.pipeline.config.sections import Count, Section, Share, kinds, one_of
from decant.pipeline.config.settings import (
    CacheSettings,
    DataSettings,
    Network,
    Settings,
    StudentSettings,
    TeacherSettings,
    ViewsSettings,
)
from decant.pipeline.config.tasks import FORMATS, MetricFormat, chosen_by, formats, headline

STUDENT = {"network": "conv", "epochs": 10}
TEACHER = {"network": "conv", "epochs": 10}


def parse(section: type[BaseModel], **values: Any) -> Any:
    return section.model_validate_json(json.dumps(values))


def refusal(section: type[BaseModel], **values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        parse(section, **values)
    return str(caught.value)


RANGES: list[tuple[type[BaseModel], dict[str, Any], str, list[Any], list[Any]]] = [
    # section, what else it needs, field, allowed, refused
    (PadCrop, {"op": "pad-crop"}, "padding", [1, 128], [0, 129, 4.0, "4", True]),
    (Flip, {"op": "flip"}, "p", [0, 0.5, 1], [-1e-9, 1.001, float("nan"), "half"]),
    (ViewsSettings, {}, "count", [1], [0, -1, 1.5]),
    (ViewsSettings, {}, "seed", [0, 2**63 - 1], [-1, 2**63]),
    (ViewsSettings, {}, "size", [1, 224], [0, 1.5]),
    (StudentSettings, STUDENT, "batch_size", [1], [0]),
    (StudentSettings, STUDENT, "optimizer", ["sgd", "adam", "adamw"], ["SGD", "lion", 1]),
    (StudentSettings, STUDENT, "lr", [1e-9, 1, 0.1], [0, -0.1, float("inf"), "0.1", True]),
    (StudentSettings, STUDENT, "momentum", [0, 0.99], [1, -0.1]),
    (StudentSettings, STUDENT, "weight_decay", [0, 5e-4], [-1e-4]),
    (StudentSettings, STUDENT, "gamma", [1e-3, 1], [0, 1.1]),
    (StudentSettings, STUDENT, "warmup_epochs", [0, 0.5, 9.9], [-1, 10, 11]),
    (StudentSettings, STUDENT, "label_smoothing", [0, 0.999], [1, -0.1]),
    (StudentSettings, STUDENT, "clip_norm", [0.1], [0, -1]),
    (StudentSettings, STUDENT, "precision", ["float32", "bfloat16", "float16"], ["float8", "half"]),
    (StudentSettings, STUDENT, "seed", [0, 2**32 - 1], [-1, 2**32]),
    (StudentSettings, STUDENT, "seeds", [1, 10], [0]),
    (StudentSettings, STUDENT, "evaluate_every", [1], [0]),
    (StudentSettings, STUDENT, "baseline", [True, False], [1, "yes"]),
    (StudentSettings, {**STUDENT, "average": "ema"}, "ema_decay", [0.001, 0.999], [0, 1]),
    (StudentSettings, {**STUDENT, "average": "swa"}, "swa_start", [0, 0.75, 0.999], [-0.1, 1]),
    (EncodingSettings, {"kind": "sparse", "draws": 2}, "head", [0, 2**16 - 1], [-1, 2**16]),
    (EncodingSettings, {"kind": "sparse"}, "draws", [1, 32], [0, -1]),
    (EncodingSettings, {"kind": "sparse", "draws": 2}, "seed", [0, 2**63 - 1], [-1, 2**63]),
    (CacheSettings, {}, "dtype", ["float16", "float32"], ["bfloat16", "float64"]),
    (CacheSettings, {}, "batch_size", [1], [0]),
    (KD, {"name": "kd"}, "alpha", [0, 1], [-0.1, 1.1]),
    (KD, {"name": "kd"}, "temperature", [1e-3, 20], [0, -4]),
    (CEPlusKL, {"name": "ce+kl"}, "weight", [0, 100], [-0.1]),
    (LogitMSE, {"name": "mse"}, "alpha", [0, 1], [1.5]),
]


@pytest.mark.parametrize(("section", "needs", "field", "allowed", "refused"), RANGES)
def test_a_value_is_taken_at_the_ends_of_its_range_and_refused_beyond_them(
    section: type[BaseModel], needs: dict[str, Any], field: str, allowed: list[Any], refused: list[Any]
) -> None:
    for value in allowed:
        assert getattr(parse(section, **needs, **{field: value}), field) == value
    for value in refused:
        assert field in refusal(section, **needs, **{field: value}), value


@pytest.mark.parametrize(
    "section", [DataSettings, ViewsSettings, TeacherSettings, CacheSettings, StudentSettings, Settings]
)
def test_no_section_takes_a_key_that_it_does_not_know(section: type[BaseModel]) -> None:
    assert "extra_forbidden" in refusal(section, nonsense=1)


def test_the_cache_is_given_as_from_and_under_no_other_name() -> None:
    assert parse(CacheSettings, **{"from": "theirs.h5"}).from_ == "theirs.h5"
    assert "extra_forbidden" in refusal(CacheSettings, from_="theirs.h5")


IMPOSSIBLE: list[tuple[type[BaseModel], dict[str, Any], str]] = [
    (ViewsSettings, {"count": 2}, "count: views without augmentation are all the same"),
    (ViewsSettings, {"resize": 64}, "resize: must be at least `size`"),
    (ViewsSettings, {"resize": 63, "size": 64}, "resize: must be at least `size`"),
    (StudentSettings, {**STUDENT, "schedule": "step"}, "milestones: .* needs at least one"),
    (StudentSettings, {**STUDENT, "milestones": [5]}, 'milestones: belong to schedule = "step"'),
    (StudentSettings, {**STUDENT, "schedule": "step", "milestones": [5, 10]}, "must lie below epochs = 10"),
    (StudentSettings, {**STUDENT, "nesterov": True, "momentum": 0}, "nesterov: needs"),
    (StudentSettings, {**STUDENT, "nesterov": True, "optimizer": "adamw"}, "nesterov: needs"),
    (StudentSettings, {**STUDENT, "schedule": "one-cycle", "warmup_epochs": 1}, "one-cycle.* its own"),
    (
        StudentSettings,
        {**STUDENT, "schedule": "step", "milestones": [2], "warmup_epochs": 3},
        "warmup_epochs: must end before the first milestone, 2",
    ),
    (EncodingSettings, {"kind": "dense-u8", "head": 2}, 'head: belongs to kind = "sparse"'),
    (EncodingSettings, {"kind": "hidden", "seed": 2}, 'draws: belongs to kind = "sparse"'),
    (EncodingSettings, {"kind": "sparse", "views": 2}, "views: are other draws"),
    (EncodingSettings, {"kind": "sparse", "head": 0}, "head: expected a whole number at least 1, or draws"),
    (EncodingSettings, {"kind": "sparse", "seed": 2}, "seed: is of draws"),
    (EncodingSettings, {"kind": "sparse", "temperatures": [2, 4]}, "temperatures: must rise and have 1"),
    (EncodingSettings, {"kind": "sparse", "temperatures": [4, 1]}, "temperatures: must rise and have 1"),
    (TeacherSettings, {"network": "conv"}, "epochs: 0 leaves the network untrained"),
    (TeacherSettings, {"network": "torchvision:resnet18"}, "epochs: 0 leaves the network untrained"),
    (TeacherSettings, {"network": {"name": "timm:resnet18", "pretrained": False}}, "epochs: 0 leaves"),
]


@pytest.mark.parametrize(("section", "values", "says"), IMPOSSIBLE)
def test_values_that_cannot_be_together_are_refused_with_the_reason(
    section: type[BaseModel], values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        parse(section, **values)


@pytest.mark.parametrize(
    "teacher",
    [
        {"network": "conv", "weights": "teacher.pth"},
        {"network": {"name": "torchvision:resnet18", "weights": "DEFAULT"}},
        {"network": {"name": "timm:resnet18", "pretrained": True}},
        {"network": "mine.networks:teacher"},
    ],
)
def test_a_teacher_that_brings_its_weights_needs_no_epochs(teacher: dict[str, Any]) -> None:
    assert parse(TeacherSettings, **teacher).epochs == 0


def test_a_network_is_a_name_or_a_name_with_arguments() -> None:
    short = parse(StudentSettings, **STUDENT).network
    long = parse(
        StudentSettings, **{**STUDENT, "network": {"name": "conv", "width": 8, "norm": "none"}}
    ).network
    assert (short.name, short.args, str(short)) == ("conv", {}, "conv")
    assert (long.name, long.args) == ("conv", {"width": 8, "norm": "none"})
    assert str(long) == "conv width=8 norm=none"


@pytest.mark.parametrize(("name", "kind"), [("kd", KD), ("ce+kl", CEPlusKL), ("mse", LogitMSE)])
def test_an_objective_is_a_name_or_a_name_with_values(name: str, kind: type[BaseModel]) -> None:
    short = parse(StudentSettings, **STUDENT, objective=name).objective
    long = parse(StudentSettings, **STUDENT, objective={"name": name}).objective
    assert short == long == kind(name=name)
    assert TypeAdapter(Objective).validate_python({"name": name}) == short


def test_nothing_in_a_section_can_be_set_afterwards() -> None:
    settings = parse(Settings, data={"name": "digits"}, teacher=TEACHER, student=STUDENT)
    for owner, field in [
        (settings, "data"),
        (settings.student, "epochs"),
        (settings.student.network, "name"),
        (settings.student.network, "width"),
        (settings.student.objective, "alpha"),
        (settings.views, "augment"),
    ]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(owner, field, 1)
    settings.student.network.args["width"] = 99
    assert settings.student.network == Network(name="conv"), "args is a copy"


def test_reading_settings_imports_nothing_heavy() -> None:
    script = "import sys, decant.pipeline.config.recipe as r; r.load_recipe()\n"
    script += "print({'torch', 'numpy', 'rich', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# What every section has in common


class Example(Section):
    count: Count = 1
    share: Share = 0.5


@pytest.mark.parametrize(
    "given",
    [
        {"cuont": 1},
        {"count": "1"},
        {"count": 1.0},
        {"count": 0},
        {"share": 1.1},
        {"share": float("nan")},
        {"share": True},
    ],
)
def test_what_is_unknown_or_of_another_type_or_range_is_an_error(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Example.model_validate(given)


def test_a_whole_number_may_stand_for_a_share_and_nothing_changes_afterwards() -> None:
    made = Example.model_validate({"share": 1})
    assert made.share == 1.0
    with pytest.raises(ValidationError):
        made.count = 2


# The figures of each task in words


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


def test_a_gain_is_above_zero_where_a_value_is_the_better_one() -> None:
    perplexity = FORMATS["language"][0]
    assert TOP1.gain(0.9, 0.7) == pytest.approx(0.2)
    assert perplexity.gain(20.0, 25.0) == 5
    assert perplexity.gain(25.0, 20.0) == -5


def test_networks_are_chosen_by_their_agreement_where_the_teacher_has_answered_on_that_part() -> None:
    assert chosen_by("language", "agreement") is not None
    assert chosen_by("classification", "agreement") is None


def test_what_is_not_known_is_a_dash() -> None:
    assert TOP1.text({}) == R2.text({"r2": None}) == "–"
    assert R2.value({"mse": 1.0}) is None


class Shape(Section):
    """What others below extend."""

    name: str


class Square(Shape):
    name: Literal["square"]
    side: Count = 1


class Round(Shape):
    """Extended too."""


class Circle(Round):
    name: Literal["circle"]


def test_the_kinds_of_a_section_are_those_that_nothing_extends_in_their_order() -> None:
    assert kinds(globals(), Shape) == (Square, Circle)


def test_a_field_of_several_kinds_is_told_apart_by_its_key() -> None:
    field: TypeAdapter[Shape] = TypeAdapter(one_of(kinds(globals(), Shape), "name"))
    assert field.validate_python({"name": "square", "side": 2}) == Square(name="square", side=2)
    assert isinstance(field.validate_python({"name": "circle"}), Circle)
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        field.validate_python({"name": "triangle"})
