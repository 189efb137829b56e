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

    Agreement is with the teacher whose folder is beside it, where there is one only. Raises NotMadeError
    where nothing is finished.
    """
    finished = list(results(base))
    if not finished:
        raise NotMadeError(f"{base}: no finished network; run: {recipe.command('teacher')}")
    test = Parts.load(recipe.settings).test
    teachers = [result for result in finished if result.kind == "teacher"]
    logits = None
    if len(teachers) == 1:
        logits = torch.from_numpy(np.load(teachers[0].folder / TEST_LOGITS, allow_pickle=False))
    for result in finished:
        network = networks.load(result).to(device)
        beside = logits if result.kind != "teacher" else None
        yield replace(result, metrics=evaluate(network, test, device, teacher_logits=beside))
