"""Training one network: built, trained, measured on the test split and saved; `result.json` is written last."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.data.samples import LabelledData, check_unchanged, task_of
from decant.pipeline.errors import ModelError
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.attempts import found_or_trained
from decant.pipeline.phases.finished_job import save_finished
from decant.pipeline.phases.initial_weights import warn_of_frozen
from decant.pipeline.phases.output_checks import require_numbers, warn_constant_outputs, warn_of_probabilities
from decant.pipeline.runs.latency import latency
from decant.pipeline.runs.open import class_names
from decant.pipeline.runs.result import Kind, Result, load_result
from decant.pipeline.runs.saved_logits import save_test_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.runs.saved_recipe import keep_data_settings, save_recipe
from decant.pipeline.support.notices import say
from decant.pipeline.support.source_code import code_sha256
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.device import Inputs
from decant.pipeline.training.epoch_log import CHECKPOINT
from decant.pipeline.training.evaluation import evaluate, predict
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.loading import BatchedData, EpochViews
from decant.pipeline.training.loop import Criterion, train
from decant.pipeline.training.metrics import measure
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides a network: its spec, what it is trained on and how, and the folder that it is kept in."""

    kind: Kind
    spec: NetworkSpec
    settings: Training
    data: BatchedData
    criterion: Criterion
    views: EpochViews
    """Which view of each sample an epoch has."""
    folder: Path
    shares: NDArray[np.float64] | None = None
    """(N,) how often each sample is drawn; None has each once an epoch."""
    lazy: bool = False
    """Whether `data` decode files, so that worker processes pay off."""
    steps_alike: bool = False
    """Whether network and criterion do the same in every step, whatever the values, so that a GPU may replay one."""
    load_initial_weights: Callable[[nn.Module], None] | None = None
    """Loads weights into the network before it is trained; None keeps those that are drawn from the seed."""
    check_unchanged: Callable[[bool], None] = lambda checksums: None
    """Raises CorruptError where what it is trained on is not what it was; with True also by checksums."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a distilled student's result that name what it is trained from: objective, cache, teacher, baseline."""

    @property
    def description(self) -> str:
        """What progress and trackers call it."""
        return f"{self.kind} {self.spec}, seed {self.settings.seed}"


@dataclass(frozen=True)
class MeasuredOn:
    """What a network is measured on."""

    test: ViewedData | None
    """None where it is not to be read, as while settings are chosen."""
    validation: ViewedData | None = None
    """What epochs are measured on, where there is one."""
    teacher_logits: Tensor | None = None
    """(N, C) of the test split, for the agreement."""

    @property
    def each_epoch(self) -> ViewedData:
        """What it is measured on after each epoch."""
        data = self.test if self.validation is None else self.validation
        assert data is not None, "a training without a validation part has a test part"
        return data

    @property
    def at_the_end(self) -> ViewedData:
        """What its outputs are looked at on when it is trained: the test split, unless that is not to be read."""
        return self.each_epoch if self.test is None else self.test

    @property
    def measured_on(self) -> Literal["test", "validation"]:
        """Which split `each_epoch` is."""
        return "test" if self.validation is None else "validation"

    def evaluation(
        self, settings: Training, device: torch.device, group: Group = ALONE
    ) -> Callable[[nn.Module], Metrics]:
        """What measures a network after an epoch."""
        logits = self.teacher_logits if self.validation is None else None
        return lambda network: evaluate(network, self.each_epoch, device, settings.precision, logits, group)


def load_result_on(
    folder: Path, measured: MeasuredOn, device: torch.device, recipe: Recipe | None = None
) -> Result | None:
    """The finished network of a folder, with metrics on these test and validation splits; None if none is finished.
    Without a test split its metrics on that stay as they are.

    If its metrics are of another split, the network is loaded, measured again, and its result is saved. `recipe` is the
    one by which it is looked for; its settings of data are kept in the folder, but not without a test split where it
    has metrics of one, which may be another.
    """
    result = load_result(folder)
    if result is None:
        return None
    with contextlib.suppress(OSError):  # another person's run
        (folder / CHECKPOINT).unlink(missing_ok=True)  # left by a kill just after the result was written
    test, validation, teacher_logits = measured.test, measured.validation, measured.teacher_logits
    untested = test is not None and (
        result.test_sha256 != test.data.digest()
        or (teacher_logits is not None and _is_uncompared(result, test.data) and os.access(folder, os.W_OK))
    )
    unvalidated = validation is not None and result.validation_sha256 != validation.data.digest()
    if recipe is not None and (test is not None or not result.is_tested):
        # else a report would take metrics of another test part for those of this one
        keep_data_settings(folder, recipe)
    if not untested and not unvalidated:
        return result
    network = load_network(result).to(device)
    if test is not None and untested:
        logits = predict(network, test, device)
        save_test_logits(folder, logits)
        result = replace(
            result,
            metrics=measure(logits, torch.from_numpy(test.data.labels), teacher_logits, task_of(test.data)),
            test_sha256=test.data.digest(),
        )
    if validation is not None and unvalidated:
        result = replace(result, **_validated(network, validation, device))
    result.save()
    return result


def _is_uncompared(result: Result, test: LabelledData) -> bool:
    """Whether a student was measured when its teacher had other test data, and so has no agreement with it."""
    return "agreement" not in result.metrics and task_of(test) != "regression"


def _validated(
    network: nn.Module, validation: ViewedData | None, device: torch.device, group: Group = ALONE
) -> dict[str, Any]:
    """The fields of a result that are of the validation split."""
    if validation is None:
        return {}
    metrics = evaluate(network, validation, device, group=group)
    return {"validation": metrics, "validation_sha256": validation.data.digest()}


def train_network(
    job: TrainingJob,
    recipe: Recipe,
    measured: MeasuredOn,
    device: torch.device,
    log_to: LogTo | None = None,
    group: Group = ALONE,
) -> tuple[Result, bool]:
    """Trains the network of a job, from its checkpoint if training was interrupted; returns its result, and whether
    another process had finished it.

    The folder then has the weights, the logits on the test split, the metrics of each epoch, the resolved recipe, and
    the result; `log_to` gets the metrics too. The result of a network that was measured without a test split says
    nothing of that until a later call gives it. While another process trains the same network, waits for it; if that is
    killed, goes on from its checkpoint. Several ranks must all call it; rank 0 writes, all get the result.
    """
    return found_or_trained(
        job.folder,
        lambda: load_result_on(job.folder, measured, device, recipe),
        lambda: _train(job, recipe, measured, device, log_to or LogTo(), group),
        group,
    )


def _train(
    job: TrainingJob,
    recipe: Recipe,
    measured: MeasuredOn,
    device: torch.device,
    log_to: LogTo,
    group: Group,
) -> Result:
    network = begin(job, recipe, group)
    with (log_to if group.is_first else LogTo()).run(job.description, recipe, job.folder) as log:
        kept_epoch = train(
            network,
            job.data,
            job.criterion,
            job.settings,
            job.folder,
            views=job.views,
            shares=job.shares,
            evaluate_on=measured.evaluation(job.settings, device, group),
            measured_on=measured.measured_on,
            device=device,
            lazy=job.lazy,
            steps_alike=job.steps_alike,
            description=job.description,
            check_unchanged=lambda: job.check_unchanged(False),
            log=log,
            group=group,
        )
    return finish(job, recipe, network, measured, device, kept_epoch, group)


def begin(job: TrainingJob, recipe: Recipe, group: Group = ALONE) -> nn.Module:
    """The network of a job as it is before the first step; the recipe is saved in its folder."""
    network = build_network(job.spec, job.settings.seed)
    if job.load_initial_weights is not None:
        job.load_initial_weights(network)
    warn_of_frozen(job.settings)
    if group.is_first:
        save_recipe(job.folder, recipe)
    return network


def finish(
    job: TrainingJob,
    recipe: Recipe,
    network: nn.Module,
    measured: MeasuredOn,
    device: torch.device,
    kept_epoch: int,
    group: Group = ALONE,
) -> Result:
    """Measures a trained network, and saves it with its result."""
    group.take_buffers_of_first(network)
    logits = predict(network, measured.at_the_end, device, group=group)
    validated = _validated(network, measured.validation, device, group)
    return group.of_first(
        lambda: _save_network(job, recipe, network, measured, logits, validated, device, kept_epoch)
    )


def _save_network(
    job: TrainingJob,
    recipe: Recipe,
    network: nn.Module,
    measured: MeasuredOn,
    logits: Tensor,
    validated: Mapping[str, Any],
    device: torch.device,
    kept_epoch: int,
) -> Result:
    """Saves test logits, weights and then the result of a trained network, and removes its checkpoint."""
    shown = measured.at_the_end
    if measured.test is not None:
        save_test_logits(job.folder, logits)
    metrics = measure(
        logits, torch.from_numpy(shown.data.labels), measured.teacher_logits, task_of(shown.data)
    )
    require_numbers(job.folder, logits, metrics)
    warn_constant_outputs(job.folder, logits)
    warn_of_probabilities(job.folder, logits, task_of(shown.data))
    first, _ = shown.batch([0])
    return save_finished(
        job,
        network,
        device,
        kept_epoch,
        latency_ms=lambda: _latency(job.folder, network, first, device),
        check=lambda: check_unchanged(shown.data, checksums=True),
        metrics=Metrics() if measured.test is None else metrics,
        test_sha256="" if measured.test is None else measured.test.data.digest(),
        classes=_class_names(job, shown),
        input_dtype=None if isinstance(first, dict) else str(first.dtype).removeprefix("torch."),
        network_code=code_sha256(job.spec.name),
        code=_code_of(recipe),
        **validated,
    )


def _code_of(recipe: Recipe) -> dict[str, str] | None:
    """The digests of the user's own functions that a recipe names; None where it names none."""
    code = {name: code_sha256(name) for name in recipe.settings.functions}
    return {name: sha256 for name, sha256 in code.items() if sha256 is not None} or None


def _latency(folder: Path, network: nn.Module, inputs: Inputs, device: torch.device) -> float | None:
    """Milliseconds for one input; None, which is said, where the network takes no batch of one."""
    try:
        return latency(network, inputs, device).median
    except ModelError as error:
        say(f"warning: {folder}: its latency is not known: {error}")
        return None


def _class_names(job: TrainingJob, test: ViewedData) -> list[str] | None:
    """Class names by label, or the labels as text if the data have no names; None for a regression."""
    if task_of(test.data) == "regression":
        return None
    count = 2 if task_of(test.data) == "binary" else job.spec.num_classes
    return list(class_names(test.data.classes, count))
