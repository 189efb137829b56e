"""From a recipe's objective to the loss in the training loop: settings, schedules, functions of one's own, the log."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from decant.cache import Store
from decant.pipeline.config.objectives import BUILTIN, Builtin, Objective, name_of
from decant.pipeline.config.settings import Training
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import FUNCTIONS, Terms, build, cross_entropy, from_labels, kd
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import _ensemble_temperature
from decant.pipeline.phases.student import train_students
from decant.pipeline.training.epoch_log import METRICS
from decant.pipeline.training.loading import ShuffledKeys
from decant.pipeline.training.loop import train_epoch
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.step import Step
from tests.helpers.problems import OF_ROWS
from tests.helpers.small import CPU, build_cache, recipe

STUDENT, TEACHER = torch.randn(2, 8, 4, generator=torch.manual_seed(0))
LABELS = TEACHER.argmax(1) * torch.tensor([1, 1, 1, 0, 0, 1, 0, 1]) - torch.tensor([0, 0, 0, 0, 1, 0, 0, 0])
OTHER = {
    "alpha": 0.3,
    "beta": 0.4,
    "gamma": 0.6,
    "weight": 0.7,
    "temperature": 3.0,
    "ce_weight": 0.2,
    "smoothing": 0.2,
}


def settings(name: str, **values: Any) -> Any:
    return TypeAdapter(Objective).validate_python({"name": name, **values})


def inputs(name: str) -> tuple[Tensor, Tensor, Tensor]:
    teacher = torch.stack([TEACHER, TEACHER.flip(0)], 1) if name == "general" else TEACHER
    return STUDENT, teacher, STUDENT.flip(1) if name == "regression" else LABELS


def same(one: Terms, other: Terms) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is b is None or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)


def test_every_objective_of_a_recipe_has_its_function() -> None:
    assert [settings(name).name for name in FUNCTIONS] == list(FUNCTIONS)
    assert len(BUILTIN) == len(FUNCTIONS)


@pytest.mark.parametrize("kind", BUILTIN)
def test_the_signature_of_a_function_has_the_settings_and_their_defaults(kind: type[Builtin]) -> None:
    parameters = list(inspect.signature(FUNCTIONS[name_of(kind)]).parameters.values())[3:]
    signature = {parameter.name: parameter.default for parameter in parameters}
    signature.pop("label_smoothing", None)  # of [student], for every objective with a cross-entropy
    signature.pop("sample_weights", None)  # from the class weights of [student]
    of_settings = {key: field.default for key, field in kind.model_fields.items()}
    assert signature == {key: value for key, value in of_settings.items() if key not in ("name", OF_ROWS)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_setting_reaches_the_function(name: str) -> None:
    fields = type(settings(name)).model_fields
    chosen: dict[str, Any] = {key: value for key, value in OTHER.items() if key in fields}
    for key in ("teacher_divergence", "knowledge_divergence"):
        chosen |= {key: "ce"} if key in fields else {}
    chosen |= {"standardize": True} if "standardize" in fields else {}
    chosen |= {"class_weights": [1.0, 2.0, 3.0, 4.0]} if "class_weights" in fields else {}
    assert chosen.keys() == fields.keys() - {"name", OF_ROWS}
    built = build(settings(name, **chosen))(*inputs(name))
    assert same(built, FUNCTIONS[name](*inputs(name), **chosen))
    for key in chosen:
        others = {other: value for other, value in chosen.items() if other != key}
        assert not same(build(settings(name, **others))(*inputs(name)), built), key


@pytest.mark.parametrize("name", FUNCTIONS)
def test_label_smoothing_goes_to_the_cross_entropy_where_there_is_one(name: str) -> None:
    if name == "ls":
        with pytest.raises(RecipeError, match=r"student\.label_smoothing: must be 0 with objective ls"):
            build(settings(name), 0.1)
        return
    plain, smooth = (build(settings(name), smoothing)(*inputs(name)) for smoothing in (0.0, 0.1))
    with_hard = plain.hard is not None and name != "regression"
    assert same(plain, smooth) != with_hard
    if with_hard:
        assert torch.equal(smooth.hard, cross_entropy(STUDENT, LABELS, 0.1))


@pytest.mark.parametrize(
    ("progress", "alpha", "temperature"), [(0.0, 1.0, 8.0), (0.5, 0.75, 5.0), (1.0, 0.5, 2.0)]
)
def test_schedules_follow_the_training(progress: float, alpha: float, temperature: float) -> None:
    found = build(
        settings(
            "kd",
            alpha={"from": 1.0, "to": 0.5},
            temperature={"from": 8.0, "to": 2.0, "schedule": "cosine"},
        )
    )(STUDENT, TEACHER, LABELS, progress=progress)
    expected = kd(STUDENT, TEACHER, LABELS, alpha, temperature)
    assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-6)


def test_a_network_without_a_teacher_has_the_cross_entropy() -> None:
    assert torch.equal(from_labels(0.1)(STUDENT, LABELS, progress=0.5), cross_entropy(STUDENT, LABELS, 0.1))


def test_without_a_teacher_a_regression_has_the_squared_error_and_no_labels_to_smooth() -> None:
    targets = STUDENT.flip(1)
    found = from_labels(0.1, task="regression")(STUDENT, targets, progress=0.5)
    assert float(found) == pytest.approx(float((STUDENT - targets).square().mean()))


# One's own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of somebody's."""
    (tmp_path / "somebodys.py").write_text(
        "def loss(student_logits, teacher_logits, labels, power=2):\n"
        "    return (student_logits - teacher_logits).abs().pow(power).mean()\n"
        "def rows(student_logits, teacher_logits, labels):\n"
        "    return student_logits.sum(1)\n"
        "def number(student_logits, teacher_logits, labels):\n"
        "    return 1.0\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "somebodys"


def test_ones_own_function_is_called_with_its_arguments(module: str) -> None:
    found = build(settings(f"{module}:loss", power=3))(STUDENT, TEACHER, LABELS, progress=0.5)
    assert same(found, Terms((STUDENT - TEACHER).abs().pow(3).mean()))


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("somebodys:gone", {}, "'somebodys:gone': module somebodys has no 'gone'; known: loss, number, rows"),
        (
            "nobodys:loss",
            {},
            "'nobodys:loss': cannot be imported .ModuleNotFoundError: No module named 'nobodys'",
        ),
        ("somebodys:constant", {}, "'somebodys:constant': constant is not callable, it is of type int"),
        (
            "somebodys:loss",
            {"pow": 3},
            r"does not take student_logits, teacher_logits, labels, pow = 3 \(TypeError: got an unexpected",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_before_training(
    module: str, name: str, args: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        build(settings(name, **args))


@pytest.mark.parametrize(("name", "says"), [("rows", r"found shape \(8,\)"), ("number", "found float")])
def test_what_a_function_returns_is_one_number(module: str, name: str, says: str) -> None:
    with pytest.raises(
        RecipeError, match=f"'somebodys:{name}': must return a tensor of one number, .*{says}"
    ):
        build(settings(f"somebodys:{name}"))(STUDENT, TEACHER, LABELS)


# In the training loop


def test_the_loop_tells_the_progress_and_means_the_terms_over_the_samples() -> None:
    seen: list[float] = []

    def criterion(outputs: Tensor, labels: Tensor, progress: float) -> Terms:
        seen.append(progress)
        return Terms(outputs.sum() * 0 + len(labels), torch.tensor(float(len(seen))), None)

    network, chosen = nn.Linear(2, 2), Training(network={"name": "linear"}, epochs=4, channels_last=False)
    batches = [(torch.zeros(size, 2), torch.zeros(size, dtype=torch.int64)) for size in (3, 2)]
    stepper = Stepper(network, make_optimizer(network, chosen, CPU), chosen)
    step = Step(network, criterion, stepper, chosen)
    found = train_epoch(step, iter(batches), chosen, epoch=3, keys=ShuffledKeys(5, 3, 0))
    assert seen == [6 / 8, 7 / 8]
    assert found == {"loss": (3 * 3 + 2 * 2) / 5, "hard": (3 * 1 + 2 * 2) / 5}


def test_what_a_student_learns_is_logged_beside_its_loss(tmp_path: Path) -> None:
    build_cache(tmp_path)
    made = train_students(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU)
    alone, distilled = (
        [json.loads(line) for line in (result.folder / METRICS).read_text().splitlines()]
        for result, _ in made
    )
    for line in distilled:
        assert line["loss"] == pytest.approx(0.1 * line["hard"] + 0.9 * line["soft"], rel=1e-5)
    for line in alone:
        assert not {"hard", "soft"} & line.keys()


def test_softmaxes_are_averaged_at_the_temperature_of_the_objective() -> None:
    schedule = "student.objective.temperature={from=8, to=2}"
    assert _ensemble_temperature(recipe("student.objective.temperature=3").settings) == 3.0
    assert _ensemble_temperature(recipe("student.objective=mse").settings) == 1.0
    assert _ensemble_temperature(recipe("student.objective=my.module:loss").settings) == 1.0
    assert _ensemble_temperature(recipe(schedule, "cache.ensemble=logits").settings) == 1.0
    with pytest.raises(RecipeError, match=r'temperature is a schedule; set cache\.ensemble = "logits"'):
        _ensemble_temperature(recipe(schedule).settings)
