"""`decant evaluate` of language models: finished networks, measured again from their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.joined_ranks import compare_data, join_ranks
from decant.pipeline.phases.language.finished_teacher import load_teacher
from decant.pipeline.phases.language.measuring import metrics_of
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.student import held_out_of_teacher
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.group import ALONE


def evaluate_runs(plan: LanguagePlan, device: torch.device) -> Iterator[Result]:
    """Yields every finished network of a recipe, teachers first, with metrics on the test part computed from its
    weights. A student is compared with the teacher that it was trained from, a labels-only one with the recipe's, as
    far as that teacher's cache of the test part is there. Raises NotMadeError if no network is finished.
    """
    ranks = join_ranks(plan, device)
    compare_data(ranks, plan.data.student_fingerprints)
    if ranks is not None and not ranks.is_first:
        return
    outputs, found = plan.data.num_outputs, False
    shape = (plan.data.max_length,)
    for result in plan.finished():
        if (result.network.num_classes, result.network.input_shape) != (outputs, shape):
            continue
        found = True
        yield on_test_part(plan, result, device)
    if not found:
        raise NotMadeError(
            f"{plan.base}: no finished network of these data; run: "
            f"{plan.recipe.command('teacher' if plan.server is None else 'student')}"
        )


def on_test_part(plan: LanguagePlan, result: Result, device: torch.device) -> Result:
    """The same network with metrics on the test part, computed from its weights."""
    network = load_teacher(result) if result.kind == "teacher" else load_network(result)
    teacher = result.teacher or plan.teacher_digest
    cache = None if result.kind == "teacher" else held_out_of_teacher(plan, "test", teacher)
    metrics = metrics_of(network, plan, "test", device, cache=cache, group=ALONE)
    return replace(result, metrics=metrics, test_sha256=plan.data.digest("test"))
