"""A job leaves everything in its folder, and says that it is finished last."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.job import MeasuredOn, load_result_on
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import RESULT, WEIGHTS, Result, load_result
from decant.pipeline.runs.saved_logits import TEST_LOGITS
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.training import loop
from decant.pipeline.training.epoch_log import CHECKPOINT, METRICS
from tests.helpers.small import CPU, plan, recipe, teach


def test_a_finished_folder_has_weights_logits_metrics_recipe_and_result(tmp_path: Path) -> None:
    folder = teach(tmp_path).folder
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, TEST_LOGITS, METRICS, RECIPE, RESULT}
    assert not (folder / CHECKPOINT).exists()


def test_a_checkpoint_that_a_kill_left_beside_a_result_is_removed(tmp_path: Path) -> None:
    folder = teach(tmp_path).folder
    (folder / CHECKPOINT).write_bytes(b"of the last epoch")
    assert teach(tmp_path).folder == folder
    assert not (folder / CHECKPOINT).exists()


def test_the_result_is_written_last(tmp_path: Path) -> None:
    folder = teach(tmp_path).folder
    written = (folder / RESULT).stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns <= written for path in folder.iterdir())


def test_the_saved_recipe_is_the_one_that_was_run(tmp_path: Path) -> None:
    folder = teach(tmp_path, "teacher.lr=0.007").folder
    assert load_recipe(str(folder / RECIPE)).settings.teacher.lr == 0.007


def test_a_line_of_metrics_has_loss_rate_time_and_what_the_test_part_says(tmp_path: Path) -> None:
    folder = teach(tmp_path).folder
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"loss", "seconds", "lr", "test"} <= lines[-1].keys()
    assert {"top1", "top5", "balanced_accuracy", "macro_f1", "loss", "ece"} == lines[-1]["test"].keys()


def test_a_result_names_its_classes_and_what_its_inputs_are(tmp_path: Path) -> None:
    def taught(folder: Path, classes: tuple[str, ...]) -> Result:
        plan = Plan.of(recipe("teacher.epochs=1"), folder)
        for split in (plan.splits.teacher_train, plan.splits.test):
            split.data.classes = classes
        return make_teacher(plan, CPU)[0]

    names = ("zero", "one", "two", "3", "vier", "ünf", "6", "7", "8", "9")
    named = taught(tmp_path / "named", names)
    assert load_result(named.folder) == named
    assert named.classes == list(names)
    assert named.input_dtype == "uint8"
    assert taught(tmp_path / "numbered", ()).classes == [str(label) for label in range(10)]


def test_a_regression_has_no_classes(tmp_path: Path) -> None:
    made = make_teacher(Plan.of(load_recipe("regression", ["teacher.epochs=1"]), tmp_path), CPU)[0]
    assert (made.classes, made.input_dtype) == (None, "float32")


@pytest.mark.parametrize("split", ["teacher_train", "test"])
def test_training_has_workers_where_the_training_data_decode_files(
    split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.of(recipe(), tmp_path)
    getattr(plan.splits, split).data.lazy = True
    asked: list[bool] = []
    monkeypatch.setattr(loop, "default_workers", lambda lazy: asked.append(lazy) or 0)
    make_teacher(plan, CPU)
    assert asked[0] is (split == "teacher_train")


def test_a_network_is_measured_again_when_the_test_part_is_another_and_not_trained_again(
    tmp_path: Path,
) -> None:
    made = teach(tmp_path)
    test = Splits.load(recipe().settings).test
    assert load_result_on(made.folder, MeasuredOn(test), CPU) == made
    test.data.labels = np.roll(test.data.labels, 1)
    test.data.__dict__.pop("_digest", None)  # a dataset of other labels, not this one changed under way
    again = load_result_on(made.folder, MeasuredOn(test), CPU)
    assert again is not None
    assert again.weights_sha256 == made.weights_sha256
    assert again.metrics["top1"] < 0.5 * made.metrics["top1"]
    assert load_result_on(made.folder, MeasuredOn(test), CPU) == again


def test_two_processes_do_not_train_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = teach(tmp_path)
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    (made.folder / RESULT).unlink()
    with ThreadPoolExecutor(1) as pool:
        with alone_with(made.folder):
            waiting = pool.submit(lambda: make_teacher(plan(tmp_path), CPU))
            while not said.getvalue().endswith("\n") and not waiting.done():
                time.sleep(0.05)
            assert re.fullmatch(
                rf"waiting: process \d+ on .* is making {re.escape(str(made.folder))}\n", said.getvalue()
            )
            made.save()  # as the process that holds the lock does, before it lets go
        assert waiting.result() == (made, True)
    assert said.getvalue().count("\n") == 1
