"""Students of several seeds, trained together in one loop where nothing stands against it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from decant.cache import CorruptError
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import ChangedError, DivergedError
from decant.pipeline.networks.build import build_network
from decant.pipeline.phases.attempts import again_where_rewritten, drop_checkpoints, dropping_changed
from decant.pipeline.phases.job import MeasuredOn, TrainingJob, begin, finish, load_result_on
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import Result, load_result
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.epoch_log import CHECKPOINT, read_epochs
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.several import train_together

MOST = 16
"""Seeds in one loop: what backward passes need of all of them is in memory at the same time."""
_SEVERAL_AT_ONCE = {"tensorboard"}
"""Trackers that follow several runs of one process at the same time."""


def why_apart(job: TrainingJob, log_to: LogTo) -> str | None:
    """What stands against training the seeds of a job in one loop, in words; None where nothing does."""
    settings = job.settings
    if settings.compile:
        return "student.compile makes one network quick"
    if settings.precision == "float16":
        return 'student.precision = "float16" scales the gradients of one network'
    if settings.log_every is not None:
        return "student.log_every prints the losses of one network"
    others = set(log_to.names) - _SEVERAL_AT_ONCE
    if others:
        return f"--log-to {min(others)} follows one run at a time"
    if not job.steps_alike:
        return "its network or loss is code of your own, or the loss has class weights or a schedule"
    inputs, labels, *_ = job.data.batch(_first_keys(job))
    if not isinstance(inputs, Tensor):
        return "texts differ in length"
    if labels.ndim != 1:
        return "its labels are mixed"
    if _draws(job, inputs.cpu()):
        return "its network draws random numbers, as dropout does, and their order would be another"
    return None


def _first_keys(job: TrainingJob) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(2, 2): the first samples, in their first view."""
    keys = np.zeros((2, 2), np.int64)
    keys[:, 0] = np.arange(2) % len(job.data)
    return keys


@torch.no_grad()
def _draws(job: TrainingJob, inputs: Tensor) -> bool:
    """Whether a network draws random numbers in training."""
    network = build_network(job.spec, job.settings.seed).train()
    before = torch.get_rng_state()
    with contextlib.suppress(RuntimeError, ValueError):  # training says what is wrong
        network(inputs)
    return not torch.equal(before, torch.get_rng_state())


@dataclass(frozen=True)
class SeveralSeeds:
    """Trains jobs that differ in their seed alone, and against which `why_apart` has nothing, or finds them
    finished."""

    recipe: Recipe
    device: torch.device
    measured: MeasuredOn
    log_to: LogTo

    def __call__(self, jobs: Sequence[TrainingJob]) -> Iterator[tuple[Result, bool]]:
        """Yields each result, and whether another process had made it. A network that has diverged ends by itself; its
        error is raised when the others are finished.
        """
        with contextlib.ExitStack() as locks:
            for job in jobs:
                locks.enter_context(alone_with(job.folder))
            found = [result for job in jobs if (result := self._find(job)) is not None]
            yield from ((result, True) for result in found)
            finished = {result.folder for result in found}
            left = [job for job in jobs if job.folder not in finished]
            with dropping_changed(job.folder for job in left):
                errors = again_where_rewritten(lambda: self._train(left), lambda: _num_epochs(left))
            made = (self._find(job) for job in left)
            yield from ((result, False) for result in made if result is not None)
            for error in errors:
                raise error

    def _find(self, job: TrainingJob) -> Result | None:
        return load_result_on(job.folder, self.measured, self.device, self.recipe)

    def _train(self, jobs: Sequence[TrainingJob]) -> list[DivergedError]:
        """Trains and saves the networks that are not finished; returns the errors of those that have diverged."""
        jobs = [job for job in jobs if load_result(job.folder) is None]
        if not jobs:
            return []
        first = jobs[0]
        with contextlib.ExitStack() as runs:
            learners = [self._learner(job, runs) for job in jobs]
            diverged = train_together(
                learners,
                first.data,
                first.criterion,
                views=first.views,
                shares=first.shares,
                device=self.device,
                lazy=first.lazy,
                steps_alike=first.steps_alike,
                description=f"{first.kind} {first.spec}, {len(jobs):,} seeds",
            )
        with _dropped_together(jobs):
            for job, learner in zip(jobs, learners, strict=True):
                if learner not in diverged:
                    kept = learner.finish()
                    finish(job, self.recipe, learner.network, self.measured, self.device, kept)
        return list(diverged.values())

    def _learner(self, job: TrainingJob, runs: contextlib.ExitStack) -> Learner:
        return Learner(
            begin(job, self.recipe),
            job.settings,
            job.folder,
            evaluate_on=self.measured.evaluation(job.settings, self.device),
            measured_on=self.measured.measured_on,
            device=self.device,
            check_unchanged=lambda: job.check_unchanged(False),
            log=runs.enter_context(self.log_to.run(job.description, self.recipe, job.folder)),
        )


@contextlib.contextmanager
def _dropped_together(jobs: Sequence[TrainingJob]) -> Iterator[None]:
    """Where one network has lost its checkpoint, as its data are not what they were, so do the others: they have been
    trained on the same.
    """
    try:
        yield
    except (CorruptError, ChangedError):
        unfinished = [job.folder for job in jobs if load_result(job.folder) is None]
        if not all((folder / CHECKPOINT).exists() for folder in unfinished):
            drop_checkpoints(unfinished)
        raise


def _num_epochs(jobs: Sequence[TrainingJob]) -> int:
    """Epochs that are logged of all of them."""
    return sum(len(read_epochs(job.folder)) for job in jobs)
