"""The training loop of every network: teacher, baseline and student alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import prefetch
from decant.pipeline.training.data_parallel import divided
from decant.pipeline.training.device import to_device
from decant.pipeline.training.divergence import section_of
from decant.pipeline.training.epoch_log import Epoch
from decant.pipeline.training.forward import Call, Criterion, forward, name_error, require_batch_of_one
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.loading import (
    BatchedData,
    EpochKeys,
    EpochViews,
    ShuffledKeys,
    default_workers,
    loader,
)
from decant.pipeline.training.lr_schedule import learning_rate
from decant.pipeline.training.mean_parallel import parallel_of
from decant.pipeline.training.on_device import DeviceData, DeviceViews
from decant.pipeline.training.optimizer import Stepper
from decant.pipeline.training.partial_epoch import PartialEpoch, Regularly, RunningLoss
from decant.pipeline.training.step import Batch, Step


def train(
    network: nn.Module,
    data: BatchedData,
    criterion: Criterion,
    settings: Training,
    folder: Path,
    *,
    views: EpochViews,
    shares: NDArray[np.float64] | None = None,
    keys: EpochKeys | None = None,
    call: Call = forward,
    evaluate_on: Callable[[nn.Module], Metrics],
    measured_on: Literal["test", "validation"] = "test",
    device: torch.device,
    lazy: bool = False,
    steps_alike: bool = False,
    description: str = "training",
    check_unchanged: Callable[[], None] = lambda: None,
    log: Callable[[Epoch], None] = lambda line: None,
    group: Group = ALONE,
) -> int:
    """Trains `network` in place, from the checkpoint in `folder` where there is one. `shares` (N,) are how often each
    sample is drawn; None has each once an epoch. `keys` are the batches of each epoch, where they are not of
    `settings.batch_size` samples, and `call` calls the network, where its outputs are not (B, C). `steps_alike` says
    that network and criterion do the same in every step, whatever the values, so that a GPU may record one and replay
    it. `check_unchanged` is called before each checkpoint, and raises where that is not to be kept, as its data changed
    meanwhile. `measured_on` is the part that `evaluate_on` measures on; by the validation part epochs are chosen, as
    `settings.keep` and `patience` say. Returns the epoch, counted from 1, whose network is kept: averaged where
    `settings.average` says so.

    After every epoch a line of metrics.jsonl and a checkpoint are written, of short epochs two checkpoints a second,
    and `log` gets the line; within an epoch checkpoints are written as `settings.checkpoint_minutes` and
    `checkpoint_steps` say. Order, views and learning rate are functions of (seed, epoch, step) alone, and so is the
    random state where an epoch begins, so that a run that was killed ends with the same weights as one that was not (on
    a CPU, bit for bit).

    Several ranks must all call it. Each computes its rows of every batch, and ends with the weights that one process
    would have, up to rounding; rank 0 alone writes.
    """
    group = divided(group, settings, counts_samples=keys is None)
    learner = Learner(
        network,
        settings,
        folder,
        evaluate_on=evaluate_on,
        measured_on=measured_on,
        device=device,
        check_unchanged=check_unchanged,
        log=log,
        group=group,
    )
    setting = "batch_size" if keys is None else "tokens_per_batch"
    one_step = _step_of(learner, criterion, steps_alike and device.type == "cuda", call, setting)
    keys = keys or ShuffledKeys(len(data), settings.batch_size, settings.seed, views, shares, group)
    first_epoch, within = learner.resume()
    if first_epoch < settings.epochs and isinstance(keys, ShuffledKeys):
        require_batches(network, data, settings, device)
    batches = batches_of(data, keys, lazy, device, settings.epochs)
    with learner, progress(description, settings.epochs * len(keys), silent=not group.is_first) as advance:
        advance(first_epoch * len(keys) + (0 if within is None else within["batches"]))
        while not learner.is_over:
            epoch = learner.done
            torch.manual_seed(settings.seed + 1_000_003 * epoch)
            part = PartialEpoch(RunningLoss(epoch + 1, settings.log_every if group.is_first else None))
            if learner.within is not None:
                part.load(learner.within, device)
            keys.epoch, keys.first = epoch, part.batches
            kept = partial(learner.keep_part, part)
            regularly = Regularly(settings, kept) if group.is_first else None
            train_epoch(one_step, counted(batches(), advance), settings, epoch, keys, part, regularly)
            learner.end_epoch(part)
    return learner.finish()


def _step_of(learner: Learner, criterion: Criterion, record: bool, call: Call, setting: str) -> Step:
    """One batch of a network: with its rows on the other ranks, or compiled, or recorded, as settings say."""
    network, settings, group = learner.network, learner.settings, learner.group
    stepper = Stepper(network, learner.optimizer, settings, learner.scaler, learner.frozen)
    if learner.average is not None:
        stepper.after_step = learner.average.after_step
    parallel = parallel_of(network, settings, group, call) if group.count > 1 and settings.epochs else None
    compiled = settings.compile and parallel is None
    stepped = cast("nn.Module", torch.compile(network, dynamic=False)) if compiled else network
    record = record and settings.cuda_graphs
    return Step(stepped, criterion, stepper, settings, record, None, parallel, call, setting)


def train_epoch(
    one_step: Step,
    batches: Iterator[Batch],
    settings: Training,
    epoch: int,
    keys: EpochKeys,
    part: PartialEpoch | None = None,
    regularly: Regularly | None = None,
) -> dict[str, float]:
    """One pass over the batches, those after the `part` that is done; they are added to it. Returns the mean `loss`
    over its samples, and the means of `hard` and `soft` where the criterion returns them. `regularly` is called after
    each step of the optimizer.
    """
    part = part or PartialEpoch(RunningLoss(epoch + 1, None))
    network, stepper, steps = one_step.network, one_step.stepper, len(keys)
    network.train()
    for module in stepper.frozen:
        module.eval()
    groups, done, all_steps = stepper.optimizer.param_groups, epoch * steps, settings.epochs * steps
    says_how_long = settings.compile and one_step.parallel is None and not done
    started = time.perf_counter() - part.seconds
    for place, batch in enumerate(batches, start=part.batches):
        step, last = done + place, place + 1 == steps
        rate = learning_rate(step, steps, settings)
        for parameters in groups:
            parameters["lr"] = rate
        try:
            terms, size = one_step(batch, step / all_steps, keys.size_of(place), last, step)
        except RAISED as error:
            which = f"batch {place + 1:,} of epoch {epoch + 1:,}"
            name_error(error, network, batch[0], "failed in a step", one_step.setting, which)
            raise
        part.add({"loss": terms.total, "hard": terms.hard, "soft": terms.soft}, size)
        part.running.add(terms.total)
        part.seconds = time.perf_counter() - started
        if says_how_long and not place:
            print(
                f"torch.compile: the first step took {part.seconds:,.1f} s, which later ones have to make up for",
                flush=True,
            )
        if regularly is not None and not last and stepper.is_between_steps:
            regularly()
    means = part.means
    part.seconds = time.perf_counter() - started  # with what the device had left to do
    return means


def require_batches(network: nn.Module, data: BatchedData, settings: Training, device: torch.device) -> None:
    """Raises ModelError where batches of one sample come up that the network cannot be trained on."""
    if settings.batch_size == 1 or len(data) == 1:
        hint = f"set {section_of(settings)}.batch_size to 2 or more"
        if len(data) == 1:
            hint = "the training part has one sample, and needs two or more"
        inputs = to_device(data.batch(np.zeros((1, 2), np.int64))[0], device, settings.channels_last)
        require_batch_of_one(network, inputs, hint)


def batches_of(
    data: BatchedData, keys: EpochKeys, lazy: bool, device: torch.device, epochs: int | None = None
) -> Callable[[], Iterable[Batch]]:
    """What begins with the batches of `keys` for an epoch: read by workers where `lazy`, else for a GPU by a
    thread; for a GPU into page-locked memory, from where a copy waits for nothing. Made in this thread, small ones are
    made together with those of the next epochs, where it is said of how many `epochs`.
    """
    workers, on_gpu = default_workers(lazy), device.type == "cuda"
    keys.epochs = None if workers or on_gpu else epochs
    pinned = on_gpu and not isinstance(data, DeviceViews | DeviceData)
    batches = loader(data, keys, workers, pinned)
    in_thread = on_gpu and not workers  # on a CPU a thread would take time from the arithmetic
    return (lambda: prefetch(batches)) if in_thread else (lambda: batches)


def counted(batches: Iterable[Batch], advance: Callable[[int], None], count: int = 1) -> Iterator[Batch]:
    """The same batches; each adds `count` to a bar."""
    for batch in batches:
        yield batch
        advance(count)
