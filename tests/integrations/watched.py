"""Small data with views, a teacher, a cache, and a student that notes what it is trained on.

A training in any framework runs with `student` and its `objective`; `notes` are then the rows that every process has
trained on: which sample and view each input was, and how far its cached logits are from the live teacher's.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import decant
from decant.cache import SoftLabelDataset

SAMPLES, VIEWS, CLASSES = 48, 3, 5
ROUNDING = 2**-9
"""Of float16, for logits below 4."""


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Random float images (3, 8, 8), of which some may be left out, or all be in another order."""

    def __init__(self, samples: int = SAMPLES, order: list[int] | None = None) -> None:
        generator = torch.Generator().manual_seed(5)
        self.images = torch.rand(1000, 3, 8, 8, generator=generator)
        with torch.no_grad():
            self.labels = teacher()(self.images).argmax(dim=1).tolist()
        self.order = list(range(samples)) if order is None else order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[self.order[index]], self.labels[self.order[index]]


def jitter(image: Tensor, most: float = 0.5) -> Tensor:
    """A random transform, of torch's global generator."""
    return image.flip(-1) * (1 - most * torch.rand(()))


def views(samples: int = SAMPLES, order: list[int] | None = None, transform: Any = jitter) -> Any:
    return decant.Views(Pictures(samples, order), transform, count=VIEWS, seed=0)


def teacher() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)).eval()


def wrong_data() -> dict[str, Any]:
    """Views that the cache is not of, by what is wrong with them."""
    return {
        "shuffled": views(order=torch.randperm(SAMPLES).tolist()),
        "another transform": views(transform=partial(jitter, most=0.4)),
        "grown": views(samples=SAMPLES + 1),
    }


def training_set(folder: Path) -> SoftLabelDataset:
    """The views with the cache in `folder`, which is made where it is not there."""
    cache = decant.cache_logits(teacher(), views(), folder / "teacher.h5", batch_size=16)
    return SoftLabelDataset(views(), cache)


class Watched(nn.Module):
    """A student that notes its training in `folder`, a file for each process."""

    def __init__(self, folder: Path, data: Any = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
        self._teacher, self._seen = [teacher()], torch.zeros(0)  # in a list: no parameters of the student
        data = views() if data is None else data
        self._which = {
            data[index, view][0].numpy().tobytes(): (index, view)
            for index in range(len(data))
            for view in range(VIEWS)
        }
        self._file = folder / f"rank-{os.environ.get('LOCAL_RANK', '0')}.jsonl"

    def forward(self, images: Tensor) -> Tensor:
        self._seen = images
        return self.net(images)

    def objective(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Any:
        with torch.no_grad():
            error = float((self._teacher[0](self._seen) - teacher_logits).abs().max())
        rows = [self._which[image.cpu().numpy().tobytes()] for image in self._seen]
        with self._file.open("a") as file:
            file.write(json.dumps({"rows": rows, "error": error}) + "\n")
        return decant.objectives.kd(student_logits, teacher_logits, labels)


def notes(folder: Path) -> list[list[list[tuple[int, int]]]]:
    """For each process its batches of (sample, view), after the errors of all rows were found to be rounding."""
    processes = []
    for path in sorted(folder.glob("rank-*.jsonl")):
        batches = [json.loads(line) for line in path.read_text().splitlines()]
        assert max(batch["error"] for batch in batches) < ROUNDING
        processes.append([[(index, view) for index, view in batch["rows"]] for batch in batches])
    return processes


def epochs(processes: list[list[list[tuple[int, int]]]], count: int) -> list[list[tuple[int, int]]]:
    """All rows of each of `count` epochs, of all processes together."""
    found = []
    for epoch in range(count):
        rows = []
        for batches in processes:
            each = len(batches) // count
            assert each * count == len(batches)
            rows += [row for batch in batches[epoch * each : (epoch + 1) * each] for row in batch]
        found.append(rows)
    return found


def assert_whole_epochs(folder: Path, count: int, ranks: int = 1, first: int = 0) -> None:
    """Every epoch e has every sample once, in view e mod V, over all processes; `count` epochs from `first` on."""
    processes = notes(folder)
    assert len(processes) == ranks
    for epoch, rows in enumerate(epochs(processes, count), first):
        assert sorted(rows) == [(index, epoch % VIEWS) for index in range(SAMPLES)], f"epoch {epoch}"
