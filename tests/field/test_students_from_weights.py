"""A student that begins with weights, and what else people set of a training, through the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.field.conftest import Learnt, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

SMALL = (
    "student.network={name='conv', width=4}",
    "student.epochs=1",
    "student.lr=0.001",
    "student.batch_size=12",
)


@pytest.fixture(scope="module")
def cached(learnt: Learnt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and its cache."""
    folder = tmp_path_factory.mktemp("cached")
    write_recipe(folder, learnt.images, learnt.network, f'weights = "{learnt.weights}"')
    for phase in ("teacher", "cache-logits"):
        succeed(decant(phase, "--recipe", "mine.toml", cwd=folder))
    return folder


def student(folder: Path, *settings: str, phase: str = "student") -> Any:
    words = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    return decant(phase, "--recipe", "mine.toml", *words, cwd=folder)


def results(folder: Path, done: Any) -> list[dict[str, Any]]:
    """Of the students that a command made: labels-only, then distilled."""
    made = [line.split()[1].rstrip(":") for line in succeed(done).splitlines() if line.startswith("made ")]
    return [json.loads((folder / run / "result.json").read_text()) for run in made]


@pytest.mark.parametrize("given", ["file", "folder", "teacher"])
def test_both_kinds_of_student_begin_with_weights(given: str, learnt: Learnt, cached: Path) -> None:
    torch.save({"model": learnt.state}, cached / "start.pth")
    weights = {"file": "start.pth", "folder": str(learnt.weights.parent), "teacher": "teacher"}[given]
    rate = {"file": 1e-7, "folder": 2e-7, "teacher": 3e-7}[given]
    done = student(cached, f"student.weights={weights}", f"student.lr={rate}")
    alone, distilled = results(cached, done)
    assert alone["metrics"]["top1"] == distilled["metrics"]["top1"] == 1
    assert ("does not tell how its inputs were normalised" in done.stderr) == (given == "file")
    assert done.stderr.count("start.pth") == (given == "file"), "said once for both"
    again = student(cached, f"student.weights={weights}", f"student.lr={rate}")
    assert "made " not in succeed(again)


def test_another_file_of_the_same_name_is_another_student(learnt: Learnt, cached: Path) -> None:
    torch.save(learnt.state, cached / "changing.pth")
    assert len(results(cached, student(cached, "student.weights=changing.pth"))) == 2
    torch.save({name: value * 2 for name, value in learnt.state.items()}, cached / "changing.pth")
    assert len(results(cached, student(cached, "student.weights=changing.pth"))) == 2
    assert "done" in succeed(student(cached, "student.weights=changing.pth", phase="status"))


def test_weights_of_other_classes_begin_a_new_last_layer(learnt: Learnt, cached: Path) -> None:
    state = dict(learnt.state)
    for name in ("11.weight", "11.bias"):
        state[name] = torch.zeros(7, *state[name].shape[1:])
    torch.save(state, cached / "seven.pth")
    done = student(cached, "student.weights=seven.pth")
    assert len(results(cached, done)) == 2
    assert done.stderr.count("a new last layer, from 7 to 3 classes") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["student.weights=none.pth"], "none.pth: no such weights file"),
        (["student.weights=teacher", "student.network=linear"], "does not fit this network"),
        (["student.weights_key=model"], "student.weights_key: is a place in the file `weights`"),
        (["student.freeze=['12']"], "student.freeze: the network has no layer '12'"),
        (["student.freeze=0"], "student.freeze: expected a list, found 0"),
        (["student.accumulate=0"], "student.accumulate: expected a whole number at least 1"),
        (["student.ema=0.9"], "student.ema: unknown key"),
    ],
)
def test_what_cannot_be_is_refused(settings: list[str], says: str, cached: Path) -> None:
    assert says in refused(student(cached, *settings))


def test_a_teacher_that_is_not_made_is_asked_for(learnt: Learnt, cached: Path) -> None:
    (cache,) = cached.glob("caches/*.h5")
    words = (f"cache.from={cache}", "student.weights=teacher", "teacher.epochs=3")
    assert "run: decant teacher" in refused(student(cached, *words))


def test_frozen_layers_stay_as_they_were_given(learnt: Learnt, cached: Path) -> None:
    words = ("student.weights=teacher", "student.freeze=['body.0', '1']", "student.baseline=false")
    done = student(cached, *words, "student.accumulate=2", "student.precision=float16")
    (result,) = results(cached, done)
    assert result["parameters"] == learnt.result["parameters"], "frozen parameters count too"
    run = next(path for path in cached.glob("runs/**/result.json") if json.loads(path.read_text()) == result)
    state, start = load_file(run.parent / "weights.safetensors"), load_file(learnt.weights)
    kept = {name for name in state if torch.equal(state[name], start[name])} - {
        "preprocess.mean",
        "preprocess.std",
    }
    assert kept == {name for name in state if name.startswith(("body.0.", "body.1."))}
    saved = (run.parent / "recipe.toml").read_text()
    assert "accumulate = 2" in saved
    assert "freeze" not in only(cached, "runs/mine/teacher-*").joinpath("recipe.toml").read_text()


def test_layers_that_are_frozen_as_they_are_drawn_are_doubted(cached: Path) -> None:
    words = ("student.freeze=body.0", "student.baseline=false")
    assert "student.freeze: these layers stay as they are drawn" in student(cached, *words).stderr
    given = student(cached, *words, "student.weights=teacher")
    assert "made " in succeed(given)
    assert "freeze" not in given.stderr
