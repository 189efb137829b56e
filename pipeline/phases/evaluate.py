"""Finished networks, measured again from their files: what `decant evaluate` does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data.samples import num_outputs
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.datasets import Parts
from decant.pipeline.runs.result import Result, find_results
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.metrics import measure


def evaluate_runs(recipe: Recipe, base: Path, device: torch.device) -> Iterator[Result]:
    """Every finished network of a recipe, with metrics on the test part worked out afresh from its weights.

    What is there of other data, whose inputs or number of outputs these do not have, is left out. A distilled
    student's agreement is with the teacher that it learnt from, where that one is beside it. Raises
    NotMadeError where nothing is finished.
    """
    parts = Parts.load(recipe.settings)
    test, outputs = parts.test, num_outputs(parts.train.data)
    finished = [
        result
        for result in find_results(base, recipe.settings.data)
        if (result.network.input_shape, result.network.num_classes) == (test.data.input_shape, outputs)
    ]
    if not finished:
        raise NotMadeError(f"{base}: no finished network of these data; run: {recipe.command('teacher')}")
    labels, of_teachers = torch.from_numpy(test.data.labels), dict[str, torch.Tensor]()
    for result in finished:  # teachers come first
        logits = predict(load_network(result).to(device), test, device)
        if result.kind == "teacher":
            of_teachers[result.weights_sha256] = logits
        yield replace(result, metrics=measure(logits, labels, of_teachers.get(result.teacher or "")))
