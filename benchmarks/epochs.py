"""A student's epoch: distilled against labels only, with views against pure arithmetic, cached against live."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.caching import CPU, forward, synchronize
from benchmarks.conditions import Conditions
from benchmarks.images import digits, labelled, viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.study.arms import LiveTeacher
from benchmarks.timing import Timed, compare, medians
from decant.cache import SoftLabelDataset
from decant.pipeline import objectives
from decant.pipeline.config.objectives import KD
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import Network, Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.training.device import autocast
from decant.pipeline.training.epoch_log import trained_seconds
from decant.pipeline.training.loading import BatchedData, OrderedKeys
from decant.pipeline.training.loop import train
from decant.pipeline.training.on_device import DeviceData, device_views, fits_on_device
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.step import Criterion, Step
from decant.pipeline.views import ViewedData

BATCH = 128
LABELS, DISTIL = objectives.from_labels(), objectives.from_cache(KD(name="kd"))


@dataclass(frozen=True)
class Student:
    """A network, the images that it learns from, and how."""

    conditions: Conditions
    data: ViewedData
    settings: Training
    device: torch.device = CPU

    @classmethod
    def of(
        cls,
        conditions: Conditions,
        network: str = "resnet8",
        device: torch.device = CPU,
        count: int = 79 * BATCH,
    ) -> Student:
        """With whole batches only, so that steps can be counted."""
        content = {"network": network, "epochs": 1, "batch_size": BATCH, "nesterov": True}
        settings = Training.model_validate({**content, "precision": "bfloat16", "seed": conditions.seed})
        return cls(conditions, viewed(conditions, conditions.choose(count, 4 * BATCH)), settings, device)

    @classmethod
    def of_digits(cls, conditions: Conditions) -> Student:
        """The student of the recipe `digits`, whose arithmetic is next to nothing."""
        settings = load_recipe("digits").settings.student.model_copy(
            update={"epochs": conditions.choose(40, 1), "evaluate_every": 1_000, "seed": conditions.seed}
        )
        return cls(conditions, digits(conditions, 22 * settings.batch_size), settings)

    @property
    def what(self) -> str:
        """For the table."""
        settings, count = self.settings, len(self.data)
        like = "CIFAR" if self.data.input_shape[0] == 3 else "digits"
        return (
            f"{settings.network.name} on {self.device}, batch {settings.batch_size}, {settings.precision}, {count:,} "
            f"{like}-sized images"
        )

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.settings.epochs * len(self.data) // self.settings.batch_size

    def network(self, name: str | None = None) -> nn.Module:
        """The student's own, or another for the same images."""
        chosen = self.settings.network if name is None else Network(name=name)
        network = build_network(specify_network(chosen, self.data), self.conditions.seed)
        return network.to(self.device).to(memory_format=torch.channels_last)

    def epoch(self, data: BatchedData, criterion: Criterion) -> Timed:
        """The product's own epoch and its own count of the seconds, without measuring on a test part."""
        network, placed = self.network(), _placed(data, self.device)

        def run() -> float:
            with tempfile.TemporaryDirectory(dir=self.conditions.folder) as name:
                train(
                    network, placed, criterion, self.settings, Path(name), views=self.data.cached_views,
                    evaluate_on=lambda _: Metrics(), device=self.device, steps_alike=True,
                )  # fmt: skip
                return trained_seconds(Path(name))

        return run

    def arithmetic(self, own_steps: bool = False) -> Timed:
        """As many steps as an epoch has, on one batch that lies on the device: nothing is loaded or moved. Those of the
        optimizer are PyTorch's, or the product's own.
        """
        network = self.network().train()
        optimizer = make_optimizer(network, self.settings, self.device)
        stepper = Stepper(network, optimizer, self.settings)
        inputs, labels, logits = (value.to(self.device) for value in self.batch())
        inputs = inputs.contiguous(memory_format=torch.channels_last)

        def run() -> float:
            synchronize(self.device)
            started = time.perf_counter()
            for _ in range(self.steps):
                with autocast(self.device, self.settings.precision):
                    outputs = network(inputs)
                loss = DISTIL(outputs, labels, logits).total
                if own_steps:
                    stepper.add(loss, len(outputs))
                    continue
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            synchronize(self.device)
            return time.perf_counter() - started

        return run

    def recorded_arithmetic(self) -> Timed:
        """The same on a GPU that replays a recorded step."""
        network = self.network().train()
        stepper = Stepper(network, make_optimizer(network, self.settings, self.device), self.settings)
        step = Step(network, DISTIL, stepper, self.settings, record=True)
        batch = tuple(value.to(self.device) for value in self.batch())

        def run() -> float:
            synchronize(self.device)
            started = time.perf_counter()
            for _ in range(self.steps):
                step(batch, 0.0)
            synchronize(self.device)
            return time.perf_counter() - started

        return run

    def batch(self) -> tuple[Any, ...]:
        """(inputs, labels, teacher_logits) of the first."""
        keys = OrderedKeys(len(self.data), self.settings.batch_size)
        return labelled(self.conditions, self.data).batch(next(iter(keys)))


def _placed(data: BatchedData, device: torch.device) -> BatchedData:
    """Where the product would hold the data."""
    if isinstance(data, SoftLabelDataset) and fits_on_device(data, device):
        return DeviceData(data, device)
    return device_views(data, device) if isinstance(data, ViewedData) else data


def against_labels(conditions: Conditions) -> Iterator[Measurement]:
    """Row 6."""
    student = Student.of(conditions)
    yield compare(
        6, f"a distilled student's epoch, {student.what}",
        student.epoch(labelled(conditions, student.data), DISTIL),
        "the same student's epoch on labels only", student.epoch(student.data, LABELS),
        unit=Unit.TIME, target=1.03, repetitions=conditions.choose(15, 1),
    )  # fmt: skip


def against_arithmetic(conditions: Conditions) -> Iterator[Measurement]:
    """Row 7."""
    student = Student.of(conditions)
    yield compare(
        7, f"a distilled student's epoch with views, {student.what}",
        student.epoch(labelled(conditions, student.data), DISTIL),
        "as many steps on one batch in memory", student.arithmetic(),
        unit=Unit.TIME, target=1.02, repetitions=conditions.choose(15, 1),
    )  # fmt: skip
    small = Student.of_digits(conditions)
    yield compare(
        7, f"a distilled student's epochs, {small.what}",
        small.epoch(labelled(conditions, small.data), DISTIL),
        "as many steps on one batch in memory", small.arithmetic(),
        unit=Unit.TIME, target=1.1, repetitions=conditions.choose(15, 1),
    )  # fmt: skip
    yield compare(
        7, f"the same, {small.what}",
        small.epoch(labelled(conditions, small.data), DISTIL),
        "as many steps on one batch in memory, those of the optimizer as here", small.arithmetic(own_steps=True),
        unit=Unit.TIME, repetitions=conditions.choose(15, 1),
    )  # fmt: skip


def against_live(conditions: Conditions) -> Iterator[Measurement]:
    """Row 8: how much longer a live teacher's epoch takes, of what the parts alone say that it must."""
    student = Student.of(conditions)
    teacher = student.network("resnet20").eval()
    inputs = student.batch()[0]
    precision, repetitions = student.settings.precision, conditions.choose(9, 1)
    live, cached, forwards, steps = medians(
        student.epoch(LiveTeacher(student.data, teacher, precision), DISTIL),
        student.epoch(labelled(conditions, student.data), DISTIL),
        lambda: forward(teacher, [inputs] * student.steps, CPU, precision),
        student.arithmetic(),
        repetitions=repetitions,
    )
    gain, possible = live / cached, (forwards + steps) / steps
    yield Measurement(
        8, f"live teacher's epoch (resnet20) / cached epoch, {student.what}",
        "(teacher forward + student step) / student step, in memory",
        gain / possible, Unit.SHARE, 0.95, note=f"{gain:.2f} of {possible:.2f}",
        details={"live_seconds": live, "cached_seconds": cached, "forward_seconds": forwards,
                 "step_seconds": steps, "repetitions": repetitions},
    )  # fmt: skip
