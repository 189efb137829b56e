"""The running loss is the mean of the steps since the last one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.training.epoch_log import METRICS
from decant.pipeline.training.running import RunningLoss
from tests.helpers.small import CPU, recipe


def test_each_line_is_the_mean_of_the_steps_since_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    running = RunningLoss(epoch=2, every=3)
    for loss in (1.0, 2.0, 6.0, 4.0, 4.0, 1.0, 9.0):
        running.add(torch.tensor(loss, requires_grad=True))
    assert running.lines == [{"step": 3, "loss": 3.0}, {"step": 6, "loss": 3.0}]
    assert capsys.readouterr().out == "[2, 3] loss 3.000\n[2, 6] loss 3.000\n"


def test_without_a_number_of_steps_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    running = RunningLoss(epoch=1, every=None)
    running.add(torch.tensor(1.0))
    assert running.lines == []
    assert not capsys.readouterr().out


def test_lines_of_training_are_kept_by_epoch_and_change_nothing(tmp_path: Path) -> None:
    plain, _ = make_teacher(recipe("teacher.epochs=2"), tmp_path / "plain", CPU)
    said, _ = make_teacher(recipe("teacher.epochs=2", "teacher.log_every=10"), tmp_path / "said", CPU)
    assert said.weights_sha256 == plain.weights_sha256
    assert said.folder.name == plain.folder.name, "what is only printed makes no other run"
    lines = [json.loads(line) for line in (said.folder / METRICS).read_text().splitlines()]
    assert [[found["step"] for found in line["running"]] for line in lines] == [[10, 20]] * 2  # of 23 steps
    assert lines[1]["running"][-1]["loss"] < lines[0]["running"][0]["loss"]
    assert "running" not in (plain.folder / METRICS).read_text()
