"""A teacher that is taken as it is: whether its accuracy is one of chance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from decant.pipeline.phases.given_weights import warn_at_chance

LABELS = torch.arange(3).repeat(40)


def said(answers: Tensor, labels: Tensor, capsys: pytest.CaptureFixture[str]) -> str:
    warn_at_chance(one_hot(answers, 3).float(), labels)
    return capsys.readouterr().err


def test_a_constant_answer_is_one_of_chance(capsys: pytest.CaptureFixture[str]) -> None:
    assert "top-1 is 33.33% on 120 samples, and chance is 33.33%" in said(
        torch.zeros_like(LABELS), LABELS, capsys
    )


def test_the_largest_class_alone_is_one_of_chance_however_large(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.tensor([0] * 95 + [1] * 5)
    assert "top-1 is 95.00% on 100 samples, and chance is 95.00%" in said(
        torch.zeros(100).long(), labels, capsys
    )


@pytest.mark.parametrize(("right", "warned"), [(40, True), (48, True), (60, False), (120, False)])
def test_the_sampling_error_counts_as_chance(
    right: int, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))
    answers = (LABELS + 1) % 3
    answers[order[:right]] = LABELS[order[:right]]
    assert bool(said(answers, LABELS, capsys)) is warned


def test_of_few_samples_the_error_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    labels = torch.tensor([0, 1, 2, 0])
    assert said(torch.tensor([0, 1, 2, 1]), labels, capsys) == ""
    assert said(torch.tensor([1, 2, 0, 1]), labels, capsys) != ""


def test_samples_without_a_label_and_parts_of_one_class_tell_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said(torch.zeros(50).long(), torch.zeros(50).long(), capsys) == ""
    assert said(torch.zeros(50).long(), torch.full((50,), -1), capsys) == ""
    half = torch.where(torch.arange(120) % 2 == 0, LABELS, -1)
    assert said(LABELS, half, capsys) == ""
