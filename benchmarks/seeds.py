"""Ten seeds of one small student against one: in one loop on a GPU, side by side and in one loop on a CPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.conditions import Conditions
from benchmarks.epochs import BATCH, DISTIL
from benchmarks.images import labelled, viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare, timed
from decant.pipeline.config.settings import Training
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import specify_network
from decant.pipeline.training.evaluation import evaluate
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.on_device import DeviceData
from decant.pipeline.training.several import train_together

_SEEDS = 10
_NETWORKS = ("mlp", "conv-pool", "conv", "resnet8")


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 27."""
    if torch.cuda.is_available():
        yield from _on_gpu(conditions, torch.device("cuda"))
    else:
        yield from _on_cpu(conditions)


def _on_gpu(conditions: Conditions, device: torch.device) -> Iterator[Measurement]:
    for name in _NETWORKS:
        students = _Students(conditions, name, device)
        found = compare(
            27, f"{_SEEDS} seeds in one loop, an epoch of {students.what}, measured and saved",
            partial(students.seconds, _SEEDS), "one seed", partial(students.seconds, 1),
            unit=Unit.TIME, target=4.0, repetitions=conditions.choose(2, 1),
        )  # fmt: skip
        yield replace(found, note=f"weights of the first {students.distance():.1e} from those alone")


class _Students:
    """Students of several seeds on one GPU."""

    def __init__(self, conditions: Conditions, network: str, device: torch.device) -> None:
        self._folder, self._device = conditions.folder, device
        self._data = viewed(conditions, conditions.choose(390 * BATCH, 8 * BATCH))
        self._test = viewed(conditions, conditions.choose(10_000, 256))
        self._placed = DeviceData(labelled(conditions, self._data), self._device)
        self._settings = Training.model_validate({"network": network, "epochs": 1, "batch_size": BATCH})
        self.what = f"{network}, batch {BATCH}, {len(self._data):,} CIFAR-sized images"
        self._weights: dict[int, dict[str, Tensor]] = {}

    def seconds(self, count: int) -> float:
        """What so many of them take from their first step until they are saved."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            learners = [self._learner(seed, Path(name, str(seed))) for seed in range(count)]
            torch.cuda.synchronize()
            started = time.perf_counter()
            train_together(
                learners, self._placed, DISTIL, views=self._data.cached_views, device=self._device,
                steps_alike=True,
            )  # fmt: skip
            torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        self._weights[count] = learners[0].network.state_dict()
        return seconds

    def distance(self) -> float:
        """The largest difference between weights of the first seed, of those measured last, in one loop and alone."""
        one, several = self._weights[1], self._weights[_SEEDS]
        return max(float((one[name].float() - several[name].float()).abs().max()) for name in one)

    def _learner(self, seed: int, folder: Path) -> Learner:
        settings = self._settings.model_copy(update={"seed": seed})
        network = build_network(specify_network(settings.network, self._data), seed)
        return Learner(
            network, settings, folder, device=self._device,
            evaluate_on=lambda trained: evaluate(trained, self._test, self._device),
        )  # fmt: skip


def _on_cpu(conditions: Conditions) -> Iterator[Measurement]:
    """Whole commands, as they are waited for."""
    folder, store = Path(conditions.folder, "seeds"), Path(conditions.folder, "seeds", "store")
    folder.mkdir(exist_ok=True)
    for phase in ("teacher", "cache-logits"):
        _command(phase, "--set", "teacher.epochs=1", folder=folder)
    (cache,) = store.glob("*.h5")
    epochs, repetitions = conditions.choose(60, 2), conditions.choose(3, 1)
    for network in ("mlp", "conv"):
        given = (network, epochs, str(cache), folder)
        what = f"{_SEEDS} students, {network} on digits, {epochs} epochs, `decant student"
        one, ten = _students(1, *given), partial(_students, _SEEDS, *given)
        for option, against, other, target in (
            (("--jobs", "2", "--together"), "one student", one, 5.2),
            (("--jobs", "2"), "one student", one, 5.2),
            (("--together",), "one after the other", ten(), None),
        ):
            yield compare(
                27, f"{what} {' '.join(option)}`", ten(*option), against, other,
                unit=Unit.TIME, target=target, repetitions=repetitions,
            )  # fmt: skip


def _students(seeds: int, network: str, epochs: int, cache: str, folder: Path, *options: str) -> Timed:
    settings = (f"student.network={network}", f"student.epochs={epochs}", f"student.seeds={seeds}")
    given = [
        word
        for value in (*settings, "student.baseline=false", f"cache.from={cache}")
        for word in ("--set", value)
    ]

    def run() -> float:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        return timed(lambda: _command("student", *given, *options, folder=folder))()

    return run


def _command(*words: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "decant", *words, "--store", str(folder / "store"), "--device", "cpu"],
        cwd=folder, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
