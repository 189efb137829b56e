"""Outputs between 0 and 1 are those of a sigmoid where there are enough of them to tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decant.pipeline.phases.output_checks import warn_of_probabilities


@pytest.mark.parametrize(("samples", "says"), [(6, False), (100, True)])
def test_few_outputs_between_0_and_1_are_no_sigmoid(
    samples: int, says: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = torch.rand(samples, 2, generator=torch.Generator().manual_seed(0))
    warn_of_probabilities(Path("runs/toy"), outputs, "classification")
    assert ("ends in a sigmoid" in capsys.readouterr().err) is says
