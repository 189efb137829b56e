"""The phases on a GPU, where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import caching, gpu_photos
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.epochs import BATCH, DISTIL, LABELS, Student
from benchmarks.images import labelled
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, medians

_COUNT = 390 * BATCH  # CIFAR's 50,000, in whole batches


def steps(conditions: Conditions) -> Iterator[Measurement]:
    """Row 14."""
    student = Student.of(conditions, device=_gpu(), count=_COUNT)
    data, repetitions = labelled(conditions, student.data), conditions.choose(5, 1)
    for what, arithmetic in (
        ("as many steps on one batch on the device", student.arithmetic()),
        ("the same, recorded and replayed", student.recorded_arithmetic()),
    ):
        yield compare(
            14, f"a distilled student's epoch with views, {student.what}", student.epoch(data, DISTIL),
            what, arithmetic, unit=Unit.RATE, target=0.9, repetitions=repetitions,
        )  # fmt: skip


def phase_one(conditions: Conditions) -> Iterator[Measurement]:
    """Row 15: a ratio for each precision, and the images a second behind it; then of photographs."""
    count = conditions.choose(_COUNT, 512)
    for found in caching.measure(conditions, row=15, device=_gpu(), count=_COUNT):
        yield found
        for what, seconds in (
            (found.what, found.details["seconds"]),
            (f"{found.against}: {found.what}", found.details["against_seconds"]),
        ):
            yield Measurement(15, what, "", count / seconds, Unit.IMAGES, details={"seconds": seconds})
    yield from gpu_photos.measure(conditions, _gpu())


def training(conditions: Conditions) -> Iterator[Measurement]:
    """Row 16."""
    student, repetitions = Student.of(conditions, "resnet20", _gpu(), _COUNT), conditions.choose(5, 1)
    (seconds,) = medians(student.epoch(student.data, LABELS), repetitions=repetitions)
    yield Measurement(
        16, f"an epoch of training on labels, {student.what}", "",
        len(student.data) / seconds, Unit.IMAGES,
        details={"seconds": seconds, "repetitions": repetitions},
    )  # fmt: skip


def _gpu() -> torch.device:
    if not torch.cuda.is_available():
        raise LeftOut("no CUDA device here")
    return torch.device("cuda")
