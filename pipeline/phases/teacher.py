"""Phase zero: data → trained teacher."""

from __future__ import annotations

from functools import partial

import torch

from decant.pipeline.data.samples import check_unchanged, has_labels, task_of
from decant.pipeline.errors import DataError
from decant.pipeline.objectives import from_labels
from decant.pipeline.phases.balance import resolve_class_weights, resolve_sampler, warn_of_imbalance
from decant.pipeline.phases.given_weights import take_weights, warn_at_chance
from decant.pipeline.phases.job import MeasuredOn, TrainingJob, load_result_on, train_network
from decant.pipeline.phases.joined_ranks import compare_data, join_ranks, training_group
from decant.pipeline.phases.kept_classes import specify_teacher
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import require_trainable
from decant.pipeline.phases.untrainable import say_if_untrainable
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_logits import load_test_logits
from decant.pipeline.support.source_code import is_users
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.group import Group
from decant.pipeline.training.on_device import device_views


def make_teacher(plan: Plan, device: torch.device, log_to: LogTo | None = None) -> tuple[Result, bool]:
    """Returns the teacher of a recipe, and whether it was finished before.

    Trains it, or takes the weights that the recipe names. Training that was interrupted goes on from the last epoch.
    Each epoch has a view of its own. The teacher's logits on the test split are saved beside its weights, so that
    students can be compared with it without loading it. The ranks of a job train it together. Raises DataError if no
    sample has a label to train on, RankError where ranks have not the same program, recipe or data.
    """
    ranks = join_ranks(plan, device)
    compare_data(ranks, plan.data.teacher_fingerprints)
    with training_group(ranks, device) as group:
        return _make_teacher(plan, device, log_to, group)


def _make_teacher(
    plan: Plan, device: torch.device, log_to: LogTo | None, group: Group
) -> tuple[Result, bool]:
    settings = plan.settings.teacher
    train, test = plan.splits.teacher_train, plan.splits.test
    measured = MeasuredOn(test, plan.splits.validation)
    result = group.of_first(lambda: load_result_on(plan.teacher_folder, measured, device, plan.recipe))
    if result is not None:
        return result, True
    if settings.epochs and not has_labels(train.data):
        raise DataError(
            f"{train.data.name}: train: no sample has a label, so no teacher can be trained on it; take one "
            "as it is, with teacher.weights and teacher.epochs = 0"
        )
    say_if_untrainable(partial(require_trainable, plan))
    spec = specify_teacher(settings, train)
    weights = resolve_class_weights(settings.class_weights, train.data, "teacher.class_weights")
    warn_of_imbalance(settings, train.data, "teacher")
    job = TrainingJob(
        kind="teacher",
        spec=spec,
        settings=settings,
        data=device_views(train, device) if settings.epochs else train,
        criterion=from_labels(settings.label_smoothing, task_of(train.data), weights),
        views=train.live_views,
        folder=plan.teacher_folder,
        shares=resolve_sampler(settings, train.data, "teacher"),
        lazy=train.data.lazy,
        steps_alike=weights is None and not is_users(spec.name),
        load_initial_weights=lambda network: take_weights(network, spec, settings),
        check_unchanged=partial(check_unchanged, train.data),
    )
    result, found = train_network(job, plan.recipe, measured, device, log_to, group)
    taken_as_it_is = group.is_first and not found and not settings.epochs and settings.at_chance == "warn"
    if taken_as_it_is and task_of(train.data) == "classification":
        logits = torch.from_numpy(load_test_logits(result.folder, len(test), result.network.num_classes))
        warn_at_chance(logits, torch.from_numpy(test.data.labels), test.data.classes)
    return result, found
