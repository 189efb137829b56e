"""A rare class: what is said of it, what can be done, and what is measured, through the real command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.field.conftest import COLOURS, draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

LEARN = "epochs = 2\nbatch_size = 16\nlr = 0.02"


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """63 pictures of ash, 3 of elm and 3 of oak; a recipe, its teacher and its cache."""
    folder = tmp_path_factory.mktemp("rare")
    images = draw(folder / "images", train=3, test=4)
    random = np.random.default_rng(1)
    for number in range(100, 160):
        pixels = np.clip(COLOURS["ash"] + random.normal(0, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(images / f"train/ash/{number}.png")
    write_recipe(folder, images, '{ name = "conv", width = 4 }', LEARN)
    return folder


def run(folder: Path, phase: str, *settings: str) -> tuple[str, list[str]]:
    """What a phase prints, and its lines on stderr that speak of the numbers of samples."""
    words = [word for setting in settings for word in ("--set", setting)]
    done = decant(phase, "--recipe", "mine.toml", *words, cwd=folder)
    return succeed(done), [line for line in done.stderr.splitlines() if "samples, class" in line]


def test_a_rare_class_is_said_once_until_a_setting_minds_it(rare: Path) -> None:
    _, (said,) = run(rare, "teacher")
    assert "class ash has 63 samples, class elm 3" in said
    assert 'teacher.class_weights = "balanced" or teacher.sampler = "balanced"' in said
    assert run(rare, "teacher")[1] == [], "what is made says nothing more"
    for number, setting in enumerate(("class_weights=balanced", "sampler=balanced", "sampler=shuffled")):
        printed, warned = run(rare, "teacher", f"teacher.{setting}")
        assert warned == []
        assert ("made " in printed) == (number < 2), "every sample once an epoch is the same teacher"
    run(rare, "cache-logits")
    _, (said,) = run(rare, "student", "student.epochs=2")
    assert "student.class_weights" in said
    for setting in ("sampler=balanced", "class_weights=[0.1,3,3]", "objective.class_weights=balanced"):
        printed, warned = run(rare, "student", f"student.{setting}")
        assert (warned, "made " in printed) == ([], True)


def test_a_ratio_of_twenty_is_not_said(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", train=20, test=2)
    for name in ("elm", "oak"):
        for path in sorted((images / "train" / name).glob("*"))[1:]:
            path.unlink()
    write_recipe(tmp_path, images, '"linear"', LEARN)
    assert run(tmp_path, "teacher")[1] == []


def test_both_kinds_of_student_are_weighed_and_both_figures_are_there(rare: Path) -> None:
    run(rare, "teacher", "teacher.class_weights=balanced")
    weighed = ("teacher.class_weights=balanced", "student.class_weights=balanced", "student.objective=dkd")
    run(rare, "cache-logits", weighed[0])
    printed, _ = run(rare, "student", *weighed)
    assert printed.count("made ") == 2
    table, _ = run(rare, "evaluate")
    assert "balanced accuracy" in table
    assert "macro F1" in table
    for path in rare.glob("runs/**/result.json"):
        assert {"balanced_accuracy", "macro_f1"} <= json.loads(path.read_text())["metrics"].keys()


def test_the_key_of_an_objective_that_the_recipe_does_not_name_is_overridden(tmp_path: Path) -> None:
    write_recipe(tmp_path, draw(tmp_path / "images", train=2, test=2), '"linear"', LEARN)
    done = decant("teacher", "--recipe", "mine.toml", "--set", "student.objective.alpha=0.5", cwd=tmp_path)
    assert "made " in succeed(done)
    saved = only(tmp_path, "runs/**/recipe.toml").read_text()
    assert 'name = "kd"\nalpha = 0.5' in saved
    unknown = decant("teacher", "--recipe", "mine.toml", "--set", "student.objective.beta=0.5", cwd=tmp_path)
    assert "student.objective.beta: unknown key" in refused(unknown)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("teacher.class_weights=[1,2]", "teacher.class_weights: 2 numbers, and the data have 3 classes"),
        ("teacher.class_weights=[0,0,0]", "teacher.class_weights: at least one must be above 0"),
        ("teacher.class_weights=[1,-1,1]", "teacher.class_weights[1]: expected a number at least 0"),
        ("teacher.class_weights=even", 'teacher.class_weights: expected "balanced" or a list, found "even"'),
        ("teacher.sampler=even", "teacher.sampler: expected one of shuffled, balanced"),
    ],
)
def test_what_cannot_weigh_is_refused(setting: str, says: str, rare: Path) -> None:
    assert says in refused(decant("teacher", "--recipe", "mine.toml", "--set", setting, cwd=rare))


def test_two_weighings_of_one_loss_are_refused(rare: Path) -> None:
    words = ("--set", "student.class_weights=balanced", "--set", "student.objective.class_weights=[1,1,1]")
    said = refused(decant("teacher", "--recipe", "mine.toml", *words, cwd=rare))
    assert "student.class_weights: weighs this objective too" in said


def test_a_loss_of_ones_own_is_weighed_where_it_takes_sample_weights(rare: Path) -> None:
    (rare / "losses.py").write_text(
        "from torch.nn.functional import mse_loss\n"
        "def plain(student, teacher, labels): return mse_loss(student, teacher)\n"
        "def weighed(student, teacher, labels, sample_weights):\n"
        "    return ((student - teacher) ** 2).mean(1) @ sample_weights / sample_weights.sum()\n"
    )
    run(rare, "teacher")
    run(rare, "cache-logits")
    words = ("--set", "student.class_weights=balanced", "--set", "student.objective=losses:{}")
    plain = decant("student", "--recipe", "mine.toml", *(w.format("plain") for w in words), cwd=rare)
    assert "student.class_weights: it takes no argument sample_weights (B,)" in refused(plain)
    succeed(decant("student", "--recipe", "mine.toml", *(w.format("weighed") for w in words), cwd=rare))
