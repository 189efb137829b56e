"""Phase two: cache file × data × views → student.

Neither this module nor anything that it imports builds or runs a teacher.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from decant.cache import CheckInputs, LogitSource, Verify
from decant.cache.io.usage import using
from decant.pipeline import objectives
from decant.pipeline.config.settings import StudentSettings
from decant.pipeline.data.samples import LabelledData, check_unchanged, has_labels, task_of
from decant.pipeline.errors import ModelError, is_out_of_memory
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.objectives import Terms
from decant.pipeline.phases import soft_labels
from decant.pipeline.phases.balance import (
    resolve_class_weights,
    resolve_objective,
    resolve_sampler,
    warn_of_imbalance,
)
from decant.pipeline.phases.initial_weights import load_initial_weights
from decant.pipeline.phases.job import MeasuredOn, TrainingJob, load_result_on, train_network
from decant.pipeline.phases.joined_ranks import by_seeds, compare_data, join_ranks, training_group
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.several_seeds import MOST, SeveralSeeds, why_apart
from decant.pipeline.phases.students_by_rank import each_its_own, each_its_share
from decant.pipeline.phases.training_dataset import training_dataset
from decant.pipeline.ranks.launch import is_first
from decant.pipeline.runs.folders import seed_folder
from decant.pipeline.runs.result import WEIGHTS, Result
from decant.pipeline.runs.saved_logits import load_test_logits
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import is_users
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.loading import BatchedData
from decant.pipeline.training.on_device import DeviceData


def train_students(
    plan: Plan,
    device: torch.device,
    *,
    verify: Verify = "lazy",
    check_inputs: CheckInputs = "sample",
    log_to: LogTo | None = None,
    together: bool = False,
) -> Iterator[tuple[Result, bool]]:
    """Trains the students of a recipe, seed after seed, or `together` where they can be, on labels alone and from the
    cache.

    Yields each network when it is finished, and whether it was finished before. Both kinds have the same network,
    initial weights, order of samples, views, epochs and schedule. The ranks of a job train them together, or each its
    own, as `student.parallel` says; then rank 0 yields all of them, its own first. Raises as `soft_labels.open_cache`
    does, and RankError where ranks have not the same program, recipe or data.
    """
    ranks = join_ranks(plan, device)
    splits = plan.splits
    cache = soft_labels.open_cache(plan, verify)
    compare_data(ranks, plan.data.student_fingerprints, cache)
    with contextlib.ExitStack() as stack:
        for member in cache.members:
            stack.enter_context(using(member.path, counted=is_first()))
        spec = specify_network(plan.settings.student.network, splits.student_train)
        data = training_dataset(plan, cache, check_inputs, device)
        jobs = (job for seed in plan.seeds for job in jobs_for_seed(plan, cache, spec, data, seed))
        train = _Trainer(plan, device, teacher_logits_on_test(plan, cache), log_to or LogTo())
        if ranks is not None and by_seeds(plan.settings.student, _num_students(plan), ranks):
            if together and len(plan.seeds) > ranks.size:
                yield from each_its_share(ranks, list(jobs), _seed, train.together, train.find)
            else:
                yield from each_its_own(ranks, jobs, train, train.find)
        elif together and ranks is None:
            yield from train.together(list(jobs))
        else:
            if together:
                say_once("--together: students are trained one after the other: all ranks train each of them")
            group = stack.enter_context(training_group(ranks, device))
            for job in jobs:
                yield train(job, group)


@dataclass
class _Trainer:
    """Trains the network of one job, or finds it finished: each call is independent of the others."""

    plan: Plan
    device: torch.device
    teacher_logits: Tensor | None
    log_to: LogTo

    def __call__(self, job: TrainingJob, group: Group = ALONE) -> tuple[Result, bool]:
        """The result, and whether it was there before."""
        result = group.of_first(lambda: self.find(job))
        if result is not None:
            return result, True
        self._warn()
        return train_network(job, self.plan.recipe, self._measured(job), self.device, self.log_to, group)

    def together(self, jobs: Sequence[TrainingJob]) -> Iterator[tuple[Result, bool]]:
        """The same of all jobs: those of a kind in one loop, `MOST` seeds at a time, but for those that are finished.
        One after the other where that is not possible, which is said, or does not fit in memory.
        """
        for kind in dict.fromkeys(job.kind for job in jobs):
            seeds = [job for job in jobs if job.kind == kind]
            for start in range(0, len(seeds), MOST):  # the same ones when the command is run again
                yield from self._in_one_loop(seeds[start : start + MOST])

    def _in_one_loop(self, jobs: Sequence[TrainingJob]) -> Iterator[tuple[Result, bool]]:
        left = list[TrainingJob]()
        for job in jobs:
            result = self.find(job)
            if result is None:
                left.append(job)
            else:
                yield result, True
        why = why_apart(left[0], self.log_to) if len(left) > 1 else "there is one"
        if why is None:
            self._warn()
            several = SeveralSeeds(self.plan.recipe, self.device, self._measured(left[0]), self.log_to)
            try:
                yield from several(left)
                return
            except ModelError as error:
                if error.__cause__ is None or not is_out_of_memory(error.__cause__):
                    raise
                why = f"{len(left):,} do not fit in memory"
        if len(left) > 1:
            say_once(f"--together: students are trained one after the other: {why}")
        for job in left:
            yield self(job)

    def _warn(self) -> None:
        warn_of_imbalance(self.plan.settings.student, self.plan.splits.student_train.data, "student")

    def find(self, job: TrainingJob) -> Result | None:
        """The result of a job that is finished."""
        return load_result_on(job.folder, self._measured(job), self.device, self.plan.recipe)

    def _measured(self, job: TrainingJob) -> MeasuredOn:
        """Several teachers share a labels-only student, so its agreement with one of them is not recorded."""
        splits = self.plan.splits
        return MeasuredOn(
            splits.test, splits.validation, self.teacher_logits if job.kind == "distilled" else None
        )


def _seed(job: TrainingJob) -> int:
    return job.settings.seed


def _num_students(plan: Plan) -> int:
    """Of both kinds together."""
    both = plan.settings.student.baseline and has_labels(plan.data.student_data)
    return len(plan.seeds) * (2 if both else 1)


def jobs_for_seed(
    plan: Plan, cache: LogitSource, spec: NetworkSpec, training_data: BatchedData, seed: int
) -> list[TrainingJob]:
    """The students of one seed: on labels alone, if the recipe has a baseline and the data have labels, and distilled
    from `training_data`.
    """
    settings = plan.settings.student.model_copy(update={"seed": seed})
    train = plan.data.student_train
    weights, loss = _weights_and_loss(settings, train.data)
    labels_only = TrainingJob(
        kind="labels",
        spec=spec,
        settings=settings,
        data=training_data.views if isinstance(training_data, DeviceData) else train,
        criterion=objectives.from_labels(settings.label_smoothing, task_of(train.data), weights),
        views=train.cached_views,
        folder=seed_folder(plan.student_folder("labels"), seed),
        shares=resolve_sampler(settings, train.data, "student"),
        lazy=train.data.lazy,
        steps_alike=weights is None and not is_users(spec.name),
        load_initial_weights=_loading(plan, spec),
        check_unchanged=partial(check_unchanged, train.data),
    )
    distilled = replace(
        labels_only,
        kind="distilled",
        data=training_data,
        criterion=loss,
        steps_alike=labels_only.steps_alike and objectives.is_fixed(settings.objective),
        folder=seed_folder(plan.student_folder("distilled", cache.manifest.key), seed),
        check_unchanged=partial(_check_unchanged, cache, train.data),
        origin={
            "objective": settings.objective.model_dump(mode="json", by_alias=True),
            "cache": cache.manifest.key,
            "teacher": _teacher_sha256(cache),
            "teachers": _sha256_of_several(cache),
            "baseline": labels_only.folder.parent.name,
        },
    )
    return [labels_only, distilled] if settings.baseline and has_labels(train.data) else [distilled]


def require_trainable(plan: Plan) -> None:
    """Raises what `train_students` would of a recipe and its data alone, whatever the cache: for a network that cannot
    be built, weights that do not fit it, or settings that do not fit the data. No statistics of the data are computed.
    Raises NotMadeError where it begins with a teacher that is not finished.
    """
    settings, train = plan.settings.student, plan.data.student_train
    spec = specify_network(settings.network, train, measured=False)
    _weights_and_loss(settings, train.data)
    resolve_sampler(settings, train.data, "student")
    with torch.random.fork_rng(devices=[]):
        network = build_network(spec, fetch=False, drawn=False)
    load = _loading(plan, spec)
    if load is not None:
        load(network)


def _weights_and_loss(
    settings: StudentSettings, data: LabelledData
) -> tuple[tuple[float, ...] | None, Callable[..., Terms]]:
    """Weights of classes, and the loss of distilled students. Raises RecipeError."""
    weights = resolve_class_weights(settings.class_weights, data, "student.class_weights")
    objective = resolve_objective(settings.objective, data)
    return weights, objectives.from_cache(objective, settings.label_smoothing, weights, task_of(data))


def _check_unchanged(cache: LogitSource, data: LabelledData, checksums: bool) -> None:
    check_unchanged(data, checksums)
    for member in cache.members:
        member.check_unchanged(checksums=checksums)


def _loading(plan: Plan, spec: NetworkSpec) -> Callable[[nn.Module], None] | None:
    """What loads the weights that students begin with; None where they begin with none. Raises NotMadeError if they are
    those of a teacher that is not finished.
    """
    settings, path = plan.settings.student, plan.student_weights
    if path is None:
        return None
    if settings.weights == "teacher":
        path = plan.teacher.folder / WEIGHTS
    return lambda network: load_initial_weights(network, spec, settings, path, "student")


def _teacher_sha256(cache: LogitSource) -> str | None:
    """The SHA-256 of the weights of the teacher that a cache is of; None of an ensemble, or if it is not known."""
    weights: str | None = cache.manifest.identity["teacher"].get("weights_sha256")
    return weights


def _sha256_of_several(cache: LogitSource) -> list[str] | None:
    """The same of each teacher of an ensemble, of those that are known; None for a single cache."""
    if len(cache.members) == 1:
        return None
    of_each = (_teacher_sha256(member) for member in cache.members)
    return [weights for weights in of_each if weights is not None]


def teacher_logits_on_test(plan: Plan, cache: LogitSource) -> Tensor | None:
    """The logits (N, C) on the test split of the teacher that the cache is of, as its run saved them; None if that
    teacher is not in the run folder, or was measured on another test split, which is said.
    """
    teacher = plan.load_teacher()
    if teacher is None or teacher.weights_sha256 != _teacher_sha256(cache):
        return None
    test = plan.splits.test
    if teacher.test_sha256 != test.data.digest():
        say_once(
            f"{teacher.folder}: was measured on another test part, so students are not compared with it; measure it on "
            f"this one: {plan.recipe.command('teacher')}"
        )
        return None
    return torch.from_numpy(load_test_logits(teacher.folder, len(test), teacher.network.num_classes))
