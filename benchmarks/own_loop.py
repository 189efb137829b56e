"""Views of a dataset of one's own, against its bare transform; and the same with soft labels."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

import decant
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import compare, timed

_KINDS = ((32, 4_000, "CIFAR-sized arrays"), (256, 400, "JPEGs of 256 × 256"))


class _Pictures(Dataset[Any]):
    """Small pictures as arrays in memory, large ones as JPEGs; through a transform if it is given one."""

    def __init__(self, size: int, count: int, seed: int, transform: Any = None) -> None:
        random = np.random.default_rng(seed)
        drawn = random.integers(0, 256, (min(count, 200), size, size, 3), dtype=np.uint8)
        self.encoded = [drawn[index % len(drawn)] for index in range(count)]
        if size > 100:
            self.encoded = [_jpeg(drawn[index % len(drawn)]) for index in range(count)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        found = self.encoded[index]
        image = (
            Image.fromarray(found)
            if isinstance(found, np.ndarray)
            else Image.open(io.BytesIO(found)).convert("RGB")
        )
        return image if self.transform is None else self.transform(image), index % 10


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 17: of each size of picture what views cost, and what logits beside them."""
    for size, count, said in _KINDS:
        count = conditions.choose(count, 64)
        transform = _transform(size)
        bare = _Pictures(size, count, conditions.seed, transform)
        views = decant.Views(
            _Pictures(size, count, conditions.seed), transform, count=2, seed=conditions.seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a teacher that was never trained
            path = conditions.folder / f"own-loop-{size}.h5"
            cache = decant.cache_logits(_teacher(), views, path, batch_size=64)
        train = decant.SoftLabelDataset(views, cache)
        train.set_epoch(0)
        repetitions = conditions.choose(9, 2)
        yield compare(
            17, f"epoch over `decant.Views`, {said}", timed(_epoch(views)), "its bare transform", timed(_epoch(bare)),
            unit=Unit.TIME, target=1.05, repetitions=repetitions,
        )  # fmt: skip
        yield compare(
            17, f"epoch over `SoftLabelDataset(views, cache)`, {said}", timed(_epoch(train)), "`views` alone",
            timed(_epoch(views)), unit=Unit.RATE, target=0.97, repetitions=repetitions,
        )  # fmt: skip


def _transform(size: int) -> Any:
    crop: list[Any] = (
        [v2.RandomCrop(32, padding=4)] if size == 32 else [v2.RandomResizedCrop(224, antialias=True)]
    )
    return v2.Compose([*crop, v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def _teacher() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))


def _jpeg(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def _epoch(data: Dataset[Any]) -> Callable[[], object]:
    def run() -> object:
        for batch in DataLoader(data, batch_size=128):
            last = batch
        return last

    return run
