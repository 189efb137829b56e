"""`decant evaluate`: finished networks, measured again from their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from decant.pipeline.data.samples import check_unchanged, num_outputs, task_of
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.joined_ranks import compare_data, join_ranks, training_group
from decant.pipeline.phases.plan import Plan
from decant.pipeline.runs.open import other_classes
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support import trust
from decant.pipeline.support.notices import say
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.group import Group
from decant.pipeline.training.metrics import measure


def evaluate_runs(plan: Plan, device: torch.device) -> Iterator[Result]:
    """Yields every finished network of a recipe, teachers first, with metrics computed from its weights.

    Networks whose inputs or number of outputs are not those of the data are left out; those whose classes are others,
    or whose code has changed since they were trained, too, and that is said. A distilled student's agreement
    is with the teacher that it was trained from, if that teacher is in the run folder. The ranks of a job divide the
    test part. Raises NotMadeError if no network is finished, and DataError where image files changed meanwhile.
    """
    ranks = join_ranks(plan, device)
    compare_data(ranks, plan.data.student_fingerprints)
    with training_group(ranks, device) as group:
        yield from _evaluate_runs(plan, device, group)


def _evaluate_runs(plan: Plan, device: torch.device, group: Group) -> Iterator[Result]:
    splits = plan.splits
    test, outputs = splits.test, num_outputs(splits.student_train.data)
    of_these_data = [
        result
        for result in group.of_first(plan.finished)
        if (result.network.input_shape, result.network.num_classes) == (test.data.input_shape, outputs)
        and not _has_other_classes(result, test.data.classes)
        and not _has_other_code(result)
    ]
    if not of_these_data:
        raise NotMadeError(
            f"{plan.base}: no finished network of these data; run: {plan.recipe.command('teacher')}"
        )
    labels, by_teacher = torch.from_numpy(test.data.labels), dict[str, torch.Tensor]()
    for result in of_these_data:
        logits = predict(load_network(result).to(device), test, device, group=group)
        if result.kind == "teacher":
            by_teacher[result.weights_sha256] = logits
        yield replace(
            result, metrics=measure(logits, labels, by_teacher.get(result.teacher or ""), task_of(test.data))
        )
    check_unchanged(test.data, checksums=True)


def _has_other_classes(result: Result, named: Sequence[str]) -> bool:
    """Whether a network has other classes than the data, or in another order, which is said on stderr."""
    others = other_classes(result, named)
    if others is not None:
        say(f"warning: {result.folder}: left out: {others}")
    return others is not None


def _has_other_code(result: Result) -> bool:
    """Whether a network's code is not what it was when it was trained, which is said on stderr."""
    if not result.has_other_code or trust.trusts_everything():
        return False
    say(
        f"warning: {result.folder}: left out: the code of its network {result.network.name!r} has changed since it was "
        "trained"
    )
    return True
