"""One network from nothing to finished: built, trained, measured on the test part, saved, and then said to be
finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Training
from decant.pipeline.data.samples import task_of
from decant.pipeline.networks.build import build_network, num_parameters
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.networks.weights import load_weights
from decant.pipeline.runs.latency import device_name, latency
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.open import class_names
from decant.pipeline.runs.result import Kind, Result, load_result
from decant.pipeline.runs.saved_logits import save_test_logits
from decant.pipeline.runs.saved_network import load_network, save_network
from decant.pipeline.runs.saved_recipe import save_recipe
from decant.pipeline.training.checkpoint import CHECKPOINT
from decant.pipeline.training.epoch_log import trained_seconds
from decant.pipeline.training.evaluation import evaluate, predict
from decant.pipeline.training.loading import BatchedData, EpochViews
from decant.pipeline.training.loop import Criterion, train
from decant.pipeline.training.metrics import measure
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class Job:
    """What decides a network: where it learns, from what, how, and where it is kept."""

    kind: Kind
    spec: NetworkSpec
    settings: Training
    data: BatchedData
    criterion: Criterion
    views: EpochViews
    """Which view of each sample an epoch sees."""
    folder: Path
    lazy: bool = False
    """Whether `data` decode files, so that workers are worth their start."""
    begin_with: str | None = None
    """A file of weights; None for fresh ones from the seed."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """What a distilled student's result says of where it learnt: objective, cache, teacher, baseline."""


def finished(
    folder: Path, test: ViewedData, device: torch.device, teacher_logits: Tensor | None = None
) -> Result | None:
    """The finished network of a folder, measured again where the test part is not the one that it was
    measured on; None where none is finished.
    """
    result = load_result(folder)
    if result is None or result.test_sha256 == test.data.digest():
        return result
    logits = _test_logits(folder, load_network(result).to(device), test, device)
    result = replace(
        result,
        metrics=measure(logits, torch.from_numpy(test.data.labels), teacher_logits),
        test_sha256=test.data.digest(),
    )
    result.save()
    return result


def carry_out(
    job: Job, recipe: Recipe, test: ViewedData, device: torch.device, teacher_logits: Tensor | None = None
) -> Result:
    """The finished network of `job`, from its checkpoint when it was interrupted; `teacher_logits` are on the
    test part.

    Leaves weights, test logits (N, C) float32, metrics and the resolved recipe in the folder; `result.json`
    comes last. Raises BusyError while another process is at it.
    """
    with alone_with(job.folder):
        found = finished(
            job.folder, test, device, teacher_logits
        )  # another process may have made it meanwhile
        return found or _train(job, recipe, test, device, teacher_logits)


def _train(
    job: Job, recipe: Recipe, test: ViewedData, device: torch.device, teacher_logits: Tensor | None
) -> Result:
    network = build_network(job.spec, job.settings.seed)
    if job.begin_with is not None:
        load_weights(network, job.begin_with)
    save_recipe(job.folder, recipe)
    train(
        network,
        job.data,
        job.criterion,
        job.settings,
        job.folder,
        views=job.views,
        evaluate_on=lambda net: evaluate(net, test, device, job.settings.precision, teacher_logits),
        device=device,
        lazy=job.lazy,
        description=f"{job.kind} {job.spec}, seed {job.settings.seed}",
    )
    logits = _test_logits(job.folder, network, test, device)
    size, digest = save_network(job.folder, network, job.spec)
    first, _ = test.batch([0])
    result = Result(
        kind=job.kind,
        network=job.spec,
        seed=job.settings.seed,
        parameters=num_parameters(network),
        weights_bytes=size,
        weights_sha256=digest,
        metrics=measure(logits, torch.from_numpy(test.data.labels), teacher_logits),
        test_sha256=test.data.digest(),
        seconds=trained_seconds(job.folder),
        latency_ms=latency(network, first, device).median,
        latency_on=device_name(device),
        classes=_classes(job, test),
        input_dtype=None if isinstance(first, dict) else str(first.dtype).removeprefix("torch."),
        folder=job.folder,
        **job.origin,
    )
    result.save()
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return result


def _classes(job: Job, test: ViewedData) -> list[str] | None:
    """Class names by label, or their numbers where the data name none; None of a regression."""
    if task_of(test.data) == "regression":
        return None
    return list(class_names(test.data.classes, job.spec.num_classes))


def _test_logits(folder: Path, network: nn.Module, test: ViewedData, device: torch.device) -> Tensor:
    """(N, C) float32 on the test part, kept beside the weights."""
    logits = predict(network, test, device)
    save_test_logits(folder, logits)
    return logits
