"""Finished networks, measured again from their files: what `decant evaluate` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline import networks
from pipeline.errors import NotMadeError
from pipeline.parts import Parts
from pipeline.recipe import Recipe
from pipeline.runs import TEST_LOGITS, Result, results
from pipeline.training import evaluate


def evaluate_runs(recipe: Recipe, base: Path, device: torch.device) -> Iterator[Result]:
    """Every finished network of a recipe, with metrics on the test part worked out afresh from its weights.

    A distilled student's agreement is with the teacher that it learnt from, where that one's folder is beside
    it. Raises NotMadeError where nothing is finished.
    """
    finished = list(results(base))
    if not finished:
        raise NotMadeError(f"{base}: no finished network; run: {recipe.command('teacher')}")
    test = Parts.load(recipe.settings).test
    teachers = {result.weights_sha256: result for result in finished if result.kind == "teacher"}
    for result in finished:
        teacher = teachers.get(result.teacher or "")
        logits = None if teacher is None else _test_logits(teacher)
        network = networks.load(result).to(device)
        yield replace(result, metrics=evaluate(network, test, device, teacher_logits=logits))


def _test_logits(teacher: Result) -> torch.Tensor:
    return torch.from_numpy(np.load(teacher.folder / TEST_LOGITS, allow_pickle=False))
