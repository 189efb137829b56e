"""Networks whose outputs have a sigmoid each, from one's own function to a prediction: several classes at once, or one
logit.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decant.cache import LogitCache
from tests.helpers.commands import decant, doubts, only, refused, succeed

MINE = """
import numpy as np
from torch import nn


class Lamps(list):
    classes = ["red", "green", "blue"]


def lamps(split):
    random = np.random.default_rng(len(split))
    for _ in range(48 if split == "train" else 24):
        on = random.random(3) < 0.5
        yield (random.integers(0, 60, (3, 8, 8)) + 190 * on[:, None, None]).astype(np.uint8), on


def several(root, split):
    return Lamps(lamps(split))


def floats(root, split):
    return [(image, on.astype(np.float32)) for image, on in lamps(split)]


def some_unknown(root, split):
    return [(image, np.where([True, True, index % 3 > 0], on, -1)) for index, (image, on) in enumerate(lamps(split))]


def one(root, split):
    found = Lamps((image, int(on[0])) for image, on in lamps(split))
    found.classes = ["off", "on"]
    return found


def one_logit(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
"""
RECIPE = """
[data]
name = "mine:{function}"
{task}

[teacher]
network = {network}
epochs = 5
batch_size = 8
lr = 0.05

[student]
network = {network}
epochs = 5
batch_size = 8
lr = 0.05
"""


def write(
    folder: Path, function: str, task: str | None, network: str = '{ name = "mlp", hidden = 16 }'
) -> str:
    (folder / "mine.py").write_text(MINE)
    said = "" if task is None else f'task = "{task}"'
    (folder / "mine.toml").write_text(RECIPE.format(function=function, task=said, network=network))
    return "mine.toml"


def carry(folder: Path, recipe: str) -> None:
    for phase in ("teacher", "cache-logits", "student"):
        succeed(decant(phase, "--recipe", recipe, cwd=folder))


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teacher, cache and students of a multi-label recipe, and a picture where red and blue are on."""
    folder = tmp_path_factory.mktemp("lamps")
    carry(folder, write(folder, "several", "multilabel"))
    pixels = np.full((8, 8, 3), 30, np.uint8)
    pixels[..., [0, 2]] = 220
    Image.fromarray(pixels).save(folder / "lamp.png")
    return folder


def test_several_classes_at_once_are_learnt_from_the_teacher_and_measured(lamps: Path) -> None:
    cache = LogitCache.open(only(lamps, "caches/*.h5"))
    assert cache.manifest.identity["data"]["task"] == "multilabel"
    assert (cache.labels.shape, cache.num_outputs) == ((48, 3), 3)
    measured = json.loads(
        succeed(decant("evaluate", "--recipe", "mine.toml", "--json", cwd=lamps)).partition("\nnext")[0]
    )
    metrics = {run["kind"]: run["metrics"] for run in measured}
    assert metrics["teacher"]["map"] > 0.95, metrics["teacher"]
    assert metrics["distilled"]["map"] > 0.9, metrics["distilled"]
    assert metrics["distilled"]["agreement"] > 0.7
    assert {"f1_micro", "f1_macro", "exact_match", "loss"} < metrics["labels"].keys()
    assert "mAP" in succeed(decant("status", "--recipe", "mine.toml", cwd=lamps))
    assert "exact match" in succeed(decant("cache", "info", cache.path, cwd=lamps))


def test_a_report_shows_what_applies_and_says_what_does_not(lamps: Path) -> None:
    said = succeed(decant("report", "--recipe", "mine.toml", cwd=lamps))
    assert "each output has a sigmoid of its own" in said
    page = only(lamps, "runs/*/report.html").read_text("utf-8")
    for word in ("mAP", "micro F1", "wrong yes", "There is no matrix of confusion", "there is no softmax"):
        assert word in page, word


def test_a_prediction_has_every_class_above_the_threshold(lamps: Path) -> None:
    teacher = only(lamps, "runs/*/teacher-*")
    said = json.loads(succeed(decant("predict", teacher, "lamp.png", "--json", cwd=lamps)))
    assert sorted(said[0]["predicted"]) == ["blue", "red"], said
    assert sum(one["probability"] for one in said[0]["classes"]) > 1, "no softmax"
    assert "lamp.png: none: " in succeed(
        decant("predict", teacher, "lamp.png", "--threshold", "1", cwd=lamps)
    )


def test_an_exported_file_says_that_its_outputs_are_logits_of_sigmoids(lamps: Path) -> None:
    student = only(lamps, "runs/*/student-*-kd-*/seed-0")
    assert "mAP" in succeed(decant("export", student, "--formats", "pt2", cwd=lamps))
    said = json.loads((student / "export/export.json").read_text())["metadata"]
    assert json.loads(said["output"]) == {
        "name": "logits",
        "dtype": "float32",
        "task": "multilabel",
        "activation": "sigmoid",
    }
    assert json.loads(said["classes"]) == ["red", "green", "blue"]


def test_one_logit_is_a_network_of_two_classes(tmp_path: Path) -> None:
    recipe = write(tmp_path, "one", None, '"mine:one_logit"')
    said = refused(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    assert 'got (2, 1); for one logit of two classes set data.task = "binary"' in said
    carry(tmp_path, write(tmp_path, "one", "binary", '"mine:one_logit"'))
    assert LogitCache.open(only(tmp_path, "caches/*.h5")).num_outputs == 1
    measured = succeed(decant("evaluate", "--recipe", recipe, "--json", cwd=tmp_path)).partition("\nnext")[0]
    distilled = json.loads(measured)[-1]["metrics"]
    assert distilled["accuracy"] > 0.8, distilled
    assert {"auc", "ap", "f1", "ece", "loss", "agreement"} < distilled.keys()
    succeed(decant("report", "--recipe", recipe, cwd=tmp_path))
    assert "wrong no" in only(tmp_path, "runs/*/report.html").read_text("utf-8")
    Image.fromarray(np.full((8, 8, 3), (230, 30, 30), np.uint8)).save(tmp_path / "red.png")
    said = succeed(decant("predict", only(tmp_path, "runs/*/teacher-*"), "red.png", cwd=tmp_path))
    assert said.startswith("red.png: on: on "), said


def test_unknown_labels_are_left_out_and_the_teacher_speaks_of_them(tmp_path: Path) -> None:
    carry(tmp_path, write(tmp_path, "some_unknown", "multilabel"))
    labels = LogitCache.open(only(tmp_path, "caches/*.h5")).labels
    assert np.isnan(labels[::3, 2]).all()
    assert np.isnan(labels).sum() == 16


def test_floats_of_zeros_and_ones_are_a_regression_that_is_doubted(tmp_path: Path) -> None:
    recipe = write(tmp_path, "floats", None)
    wrong = refused(decant("teacher", "--recipe", recipe, "--set", "student.objective=kd", cwd=tmp_path))
    assert "student.objective 'kd': is for classification" in wrong
    assert 'data.task = "multilabel"' in wrong
    regression = ("--recipe", recipe, "--set", "student.objective=regression")
    doubted = decant("teacher", *regression, cwd=tmp_path)
    assert succeed(doubted)
    assert doubted.stderr.count("every label is 0.0 or 1.0") == 1
    silent = decant("teacher", *regression, "--set", "data.task=regression", cwd=tmp_path)
    assert "found runs/" in succeed(silent), "the same teacher"
    assert not doubts(silent), "and no warning"


@pytest.mark.parametrize(
    ("function", "task", "settings", "message"),
    [
        ("several", "multilabel", ("student.objective=dkd",), "set it to kd, mse"),
        (
            "several",
            "multilabel",
            ("student.objective.name=kd", "student.objective.standardize=true"),
            "standardize: is of softmaxes",
        ),
        ("several", "binary", (), "a label is a row of 3"),
        ("one", "multilabel", (), "a label is one number"),
        ("several", None, (), "a row of 3"),
    ],
)
def test_what_does_not_go_with_the_task_is_refused_in_one_line(
    function: str, task: str | None, settings: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    given = [word for one in settings for word in ("--set", one)]
    said = refused(decant("teacher", "--recipe", write(tmp_path, function, task), *given, cwd=tmp_path))
    assert message in said
    assert "\n" not in said


def test_logits_of_sigmoids_are_imported_with_their_task(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 40)
    np.save(tmp_path / "logits.npy", (4.0 * labels - 2 + random.normal(0, 1, 40)).astype(np.float32)[:, None])
    np.save(tmp_path / "labels.npy", labels)
    about = ("--labels", "labels.npy", "--teacher", "mine", "--data", "toy", "--task", "binary")
    unsaid = decant("cache", "import", "logits.npy", *about[:-2], cwd=tmp_path)
    assert "say --task binary" in unsaid.stdout + unsaid.stderr
    only(tmp_path, "caches/*.h5").unlink()
    succeed(decant("cache", "import", "logits.npy", *about, cwd=tmp_path))
    path = only(tmp_path, "caches/*.h5")
    assert LogitCache.open(path).manifest.has_sigmoids
    assert "the teacher's accuracy" in succeed(decant("cache", "info", path, cwd=tmp_path))
    np.save(tmp_path / "labels.npy", labels + 1)
    assert "row " in refused(decant("cache", "import", "logits.npy", *about, cwd=tmp_path))
