"""Systems of the literature as recipes: each runs small through the real phases, and the loss of its first batch is the
formula written out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from decant.cache import SoftLabelDataset, Store
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.student import jobs_for_seed, train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.epoch_log import METRICS
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.loading import ShuffledKeys
from tests.helpers.commands import decant, succeed
from tests.helpers.small import CPU

Array = NDArray[np.float64]
CLASSES = 10


class Images(list[tuple[NDArray[np.uint8], int]]):
    classes = tuple(map(str, range(CLASSES)))


def images(root: str, split: str) -> Images:
    """CIFAR's shape: noise of a colour that says the class; 40 to train on, 20 to test on."""
    count, seed = (40, 1) if split == "train" else (20, 2)
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    pixels = random.integers(0, 100, (count, 3, 32, 32)) + 15 * labels[:, None, None, None]
    return Images(zip(pixels.astype(np.uint8), labels.tolist(), strict=True))


SMALL = (
    f"data.name={__name__}:images",
    "views.count=2",
    "teacher.epochs=2",
    "teacher.warmup_epochs=0",
    "teacher.log_every=3",
    "cache.dtype=float32",
    "student.epochs=2",
    "student.seeds=1",
    "student.warmup_epochs=0",
    "student.batch_size=40",  # all in one batch, so that an epoch's loss is that of a batch
)
PLAIN = "views.count=1"


@dataclass
class System:
    """A recipe that ran, and the first batch of its distilled student, worked out anew."""

    teachers: list[Result]
    students: list[Result]
    loss: float
    """Of the student's first step, as its run wrote it down."""
    student: Array
    """(B, C) logits of the student before that step."""
    teacher: list[Array]
    """(B, C) logits of each teacher on the very inputs, live."""
    labels: NDArray[np.int64]


def run(folder: Path, name: str, *overrides: str) -> System:
    """Every phase of a recipe."""
    recipe, store = load_recipe(name, [*SMALL, *overrides]), Store(folder / "caches")
    teachers = []
    plan = Plan.of(recipe, folder / "runs", store)
    for each in plan.by_teacher:
        teachers.append(make_teacher(each, CPU)[0])
        cache_logits(each, CPU, print)
    students = [result for result, _ in train_students(plan, CPU)]
    first = json.loads((students[-1].folder / METRICS).read_text().splitlines()[0])
    return System(teachers, students, first["loss"], *_first_batch(recipe, folder, store, teachers))


def _first_batch(
    recipe: Recipe, folder: Path, store: Store, teachers: Sequence[Result]
) -> tuple[Array, list[Array], NDArray[np.int64]]:
    plan, settings = Plan.of(recipe, folder / "runs", store), recipe.settings.student
    cache, train = open_cache(plan), plan.splits.student_train
    spec = specify_network(settings.network, train)
    training_data = SoftLabelDataset(train, cache, check_inputs="all")
    job = jobs_for_seed(plan, cache, spec, training_data, settings.seed)[-1]
    keys = next(iter(ShuffledKeys(len(train), settings.batch_size, settings.seed, job.views)))
    inputs, labels, _ = job.data.batch(keys)
    network = build_network(spec, settings.seed).train().to(memory_format=torch.channels_last)
    with torch.no_grad():
        live = [load_network(teacher).eval()(inputs).double().numpy() for teacher in teachers]
        outputs = network(inputs.contiguous(memory_format=torch.channels_last))
        return outputs.double().numpy(), live, labels.numpy()


def log_softmax(logits: Array, temperature: float = 1.0) -> Array:
    scaled = logits / temperature
    return (
        scaled
        - np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1, keepdims=True))
        - scaled.max(1, keepdims=True)
    )


def kl(teacher: Array, student: Array, temperature: float = 1.0) -> float:
    t, s = log_softmax(teacher, temperature), log_softmax(student, temperature)
    return float((np.exp(t) * (t - s)).sum(1).mean())


def soft_cross_entropy(teacher: Array, student: Array, temperature: float = 1.0) -> float:
    t, s = log_softmax(teacher, temperature), log_softmax(student, temperature)
    return float(-(np.exp(t) * s).sum(1).mean())


def cross_entropy(student: Array, labels: NDArray[np.int64]) -> float:
    return float(-log_softmax(student)[np.arange(len(labels)), labels].mean())


# alpha·D(teacher, student) + beta·D(knowledge, student)

TWO = (
    "teacher.network=linear",
    "teacher.batch_size=8",
    "knowledge.network=mlp",
    "knowledge.batch_size=8",
    "knowledge.epochs=2",
    "knowledge.warmup_epochs=0",
)
WEIGHTS = ("student.objective.alpha=0.3", "student.objective.beta=1.1", "student.objective.temperature=3.0")


@pytest.mark.parametrize("student", ["mobilenet_v2", "squeezenet1_1"])
def test_two_soft_targets_teach_torchvisions_small_networks(tmp_path: Path, student: str) -> None:
    network = (f"student.network.name=torchvision:{student}", "student.network.dropout=0.0")
    found = run(tmp_path, "general", *TWO, *WEIGHTS, *network, "student.objective.knowledge_divergence=ce")
    teacher, knowledge = found.teacher
    expected = 0.3 * kl(teacher, found.student, 3) + 1.1 * soft_cross_entropy(knowledge, found.student, 3)
    assert found.loss == pytest.approx(expected, rel=2e-4)
    assert abs(kl(teacher, found.student, 3) - kl(knowledge, found.student, 3)) > 0.01, (
        "they must be told apart"
    )
    assert found.students[-1].teachers == [result.weights_sha256 for result in found.teachers]
    assert found.students[-1].network.args == {"stem_stride": 1, "dropout": 0.0}


def test_caches_that_are_given_are_teacher_and_knowledge_in_their_order(tmp_path: Path) -> None:
    settings = (*TWO, *WEIGHTS, "student.network=linear", "student.baseline=false")
    made = run(tmp_path, "general", *settings)
    store = Store(tmp_path / "caches")
    recipe = load_recipe("general", [*SMALL, *settings])
    paths = [str(cache.path) for cache in open_cache(Plan.of(recipe, tmp_path / "runs", store)).caches]  # type: ignore[union-attr]

    def weights(*names: str) -> str:
        given = load_recipe("general", [*SMALL, *settings, f"cache.from={list(names)!r}"])
        ((result, _),) = train_students(Plan.of(given, tmp_path / "runs", store), CPU)
        return result.weights_sha256

    assert weights(*paths) == made.students[0].weights_sha256
    assert weights(*paths[::-1]) != made.students[0].weights_sha256


def test_the_commands_make_both_teachers_and_compare_all_networks(tmp_path: Path) -> None:
    module = Path(__file__).read_text().partition("SMALL = (")[0].partition("CLASSES = 10")[2]
    (tmp_path / "own.py").write_text(
        f"import numpy as np\nfrom numpy.typing import NDArray\nCLASSES = 10\n{module}"
    )
    options = [*SMALL, "data.name=own:images", *TWO, "student.network=linear"]
    words = ["--recipe", "general", *(word for option in options for word in ("--set", option))]
    for phase in ("teacher", "cache-logits"):
        assert succeed(decant(phase, *words, cwd=tmp_path)).count("made ") == 2
    said = [line.strip() for line in succeed(decant("student", *words, cwd=tmp_path)).splitlines()]
    heading = next(place for place, line in enumerate(said) if line.startswith("network"))
    for column in ("parameters", "weight file", "test top-1", "ms a sample"):
        assert column in said[heading]
    kinds = ["linear ", "mlp ", "linear ", "linear "]
    assert all(line.startswith(kind) for line, kind in zip(said[heading + 2 :], kinds, strict=False)), said
    assert "general (alpha 0.5, beta 0.5, temperature 2, teacher_divergence kl" in said[heading + 5]


# Soft transfer


@pytest.mark.parametrize("part", ["knowledge", "data", "model"])
def test_soft_transfer_of_knowledge_data_and_model(tmp_path: Path, part: str) -> None:
    found = run(tmp_path, "soft-transfer", PLAIN, f"student.objective.name=soft-transfer-{part}")
    (teacher,), student, labels = found.teacher, found.student, found.labels
    assert 0 < (teacher.argmax(1) == labels).mean() < 1, "the teacher must be right of some, and of some not"
    likelihoods = log_softmax(student, 0.5)[np.arange(40), labels]
    data = -(likelihoods * (teacher.argmax(1) == labels)).mean()
    expected = {
        "knowledge": soft_cross_entropy(teacher, student, 0.5),
        "data": data,
        "model": 0.5 * cross_entropy(student, labels) + 0.5 * data,
    }
    assert found.loss == pytest.approx(expected[part], rel=2e-4)


# A transfer set

AUGMENTED = ("student.batch_size=20", "data.transfer.share=0.5", "teacher.network=resnet8")


def test_on_a_transfer_set_the_loss_is_ce_and_half_the_kl(tmp_path: Path) -> None:
    found = run(tmp_path, "transfer-set", *AUGMENTED)
    (teacher,) = found.teacher
    expected = cross_entropy(found.student, found.labels) + 0.5 * kl(teacher, found.student)
    assert found.loss == pytest.approx(expected, rel=2e-4)
    assert [result.kind for result in found.students] == ["labels", "distilled"]


def test_without_labels_there_the_kl_alone_is_left(tmp_path: Path) -> None:
    found = run(tmp_path, "transfer-set", *AUGMENTED, "data.transfer.labels=false")
    assert (found.labels == -1).all()
    assert found.loss == pytest.approx(0.5 * kl(found.teacher[0], found.student), rel=2e-4)
    assert [result.kind for result in found.students] == ["distilled"]


# LeNet


@pytest.mark.parametrize("measure", ["cross-entropy", "mse"])
def test_a_smaller_lenet_learns_from_the_outputs_of_a_larger_one(
    tmp_path: Path, measure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = ("student.objective=mse",) if measure == "mse" else ()
    found = run(tmp_path, "lenet-cifar10", PLAIN, *objective)
    (teacher,), student = found.teacher, found.student
    expected = {
        "cross-entropy": soft_cross_entropy(teacher, student),
        "mse": float(((student - teacher) ** 2).mean()),
    }
    assert found.loss == pytest.approx(expected[measure], rel=2e-4)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    steps = [f"[{epoch}, {step}] loss " for epoch in (1, 2) for step in (3, 6, 9)]  # of 10 steps of 4
    assert [line[: len(step)] for line, step in zip(said, steps, strict=True)] == steps


def test_a_teacher_in_a_pth_of_the_tutorial_is_taken_with_its_normalisation(tmp_path: Path) -> None:
    trained = run(tmp_path / "theirs", "lenet-cifar10", PLAIN)
    theirs = load_network(trained.teachers[0]).eval()
    plain = {name.removeprefix("body."): weight for name, weight in theirs.state_dict().items()}
    torch.save(
        {name: weight for name, weight in plain.items() if not name.startswith("preprocess.")},
        tmp_path / "cifar_net.pth",
    )
    given = f"teacher.weights={tmp_path / 'cifar_net.pth'}"
    found = run(tmp_path / "ours", "lenet-cifar10", PLAIN, given, "teacher.epochs=0")
    test = Splits.load(load_recipe("lenet-cifar10", [*SMALL, PLAIN]).settings).test
    taken = load_network(found.teachers[0])
    assert taken.get_buffer("preprocess.mean").tolist() == [0.5] * 3
    assert torch.equal(predict(taken, test, CPU), predict(theirs, test, CPU))
    assert found.loss == pytest.approx(trained.loss)


def test_every_system_ships() -> None:
    for name in ("general", "soft-transfer", "transfer-set", "lenet-cifar10"):
        settings: Any = load_recipe(name).settings
        assert settings.data.name == "cifar10"
