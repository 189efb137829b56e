"""Ten seeds of one small student against one: in one loop, and on a CPU side by side too."""

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

from benchmarks.caching import CPU
from benchmarks.conditions import Conditions
from benchmarks.epochs import BATCH, DISTIL
from benchmarks.images import digits, labelled, viewed
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare, medians, timed
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import Network, Training
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.training.evaluation import evaluate
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.on_device import DeviceData
from decant.pipeline.training.several import train_together
from decant.pipeline.views import ViewedData

_SEEDS = 10
_NETWORKS = ("mlp", "conv-pool", "conv", "resnet8")


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 27; on a processor under two minutes on 2 quiet cores."""
    if torch.cuda.is_available():
        yield from _on_gpu(conditions, torch.device("cuda"))
    else:
        for network, epochs in (("mlp", 20), ("conv", 6)):
            yield from _in_one_loop(conditions, network, conditions.choose(epochs, 1))
        yield from _by_commands(conditions)


def _on_gpu(conditions: Conditions, device: torch.device) -> Iterator[Measurement]:
    data = viewed(conditions, conditions.choose(390 * BATCH, 8 * BATCH))
    test = viewed(conditions, conditions.choose(10_000, 256))
    for name in _NETWORKS:
        settings = Training.model_validate({"network": name, "epochs": 1, "batch_size": BATCH})
        students = _Students(conditions, settings, data, test, device)
        found = compare(
            27, f"{_SEEDS} seeds in one loop, an epoch of {name}, batch {BATCH}, {len(data):,} CIFAR-sized images, "
            "measured and saved",
            partial(students.seconds, _SEEDS), "one seed", partial(students.seconds, 1),
            unit=Unit.TIME, target=4.0, repetitions=conditions.choose(2, 1),
        )  # fmt: skip
        yield replace(found, note=f"weights of the first {students.distance():.1e} from those alone")


def _in_one_loop(conditions: Conditions, network: str, epochs: int) -> Iterator[Measurement]:
    """By processor time of one thread, which other processes of a machine hardly change. Of ten students on two cores
    each of two processes has five, so what five take is what ten are waited for.
    """
    recipe = load_recipe("digits").settings.student
    settings = recipe.model_copy(update={"network": Network(name=network), "epochs": epochs})
    data, test = digits(conditions, 22 * settings.batch_size), digits(conditions, 389)
    students, threads = _Students(conditions, settings, data, test, CPU), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, half, all_of_them = medians(
            *(partial(students.seconds, count) for count in (1, _SEEDS // 2, _SEEDS)),
            repetitions=conditions.choose(3, 1),
        )
    finally:
        torch.set_num_threads(threads)
    what = f"seeds in one loop, {network} on digits-sized images, {epochs} epochs, one thread, processor time"
    for count, seconds, target in ((_SEEDS // 2, half, 5.2), (_SEEDS, all_of_them, None)):
        details = {"seconds": seconds, "against_seconds": one, "repetitions": conditions.choose(3, 1)}
        note = f"as many as each of two processes has of {_SEEDS}" if target else ""
        yield Measurement(
            27, f"{count} {what}", "one seed", seconds / one, Unit.TIME, target, note, details
        )  # fmt: skip


class _Students:
    """Students of several seeds on one device."""

    def __init__(
        self,
        conditions: Conditions,
        settings: Training,
        data: ViewedData,
        test: ViewedData,
        device: torch.device,
    ) -> None:
        self._folder, self._settings, self._device = conditions.folder, settings, device
        self._data, self._test = data, test
        self._spec = specify_network(settings.network, data)
        known = labelled(conditions, data)
        self._placed = DeviceData(known, device) if device.type == "cuda" else known
        self._weights: dict[int, dict[str, Tensor]] = {}

    def seconds(self, count: int) -> float:
        """What so many of them take from their first step until they are saved: on a processor that of the process."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            learners = [self._learner(seed, Path(name, str(seed))) for seed in range(count)]
            started = self._now()
            train_together(
                learners, self._placed, DISTIL, views=self._data.cached_views, device=self._device,
                steps_alike=True,
            )  # fmt: skip
            seconds = self._now() - started
        self._weights[count] = learners[0].network.state_dict()
        return seconds

    def distance(self) -> float:
        """The largest difference between weights of the first seed, of those measured last, in one loop and alone."""
        one, several = self._weights[1], self._weights[_SEEDS]
        return max(float((one[name].float() - several[name].float()).abs().max()) for name in one)

    def _now(self) -> float:
        if self._device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def _learner(self, seed: int, folder: Path) -> Learner:
        settings = self._settings.model_copy(update={"seed": seed})
        network = build_network(self._spec, seed)
        return Learner(
            network, settings, folder, device=self._device,
            evaluate_on=lambda trained: evaluate(trained, self._test, self._device),
        )  # fmt: skip


def _by_commands(conditions: Conditions) -> Iterator[Measurement]:
    """Whole commands, as they are waited for."""
    folder, store = Path(conditions.folder, "seeds"), Path(conditions.folder, "seeds", "store")
    folder.mkdir(exist_ok=True)
    for phase in ("teacher", "cache-logits"):
        _command(phase, "--set", "teacher.epochs=1", folder=folder)
    (cache,) = store.glob("*.h5")
    for network, full in (("mlp", 60), ("conv", 20)):
        epochs, options = conditions.choose(full, 2), ("--jobs", "2", "--together")
        given = (network, epochs, str(cache), folder)
        yield compare(
            27, f"{_SEEDS} students, {network} on digits, {epochs} epochs, `decant student {' '.join(options)}`",
            _students(_SEEDS, *given, *options), "one student", _students(1, *given),
            unit=Unit.TIME, target=5.2, repetitions=conditions.choose(3, 1),
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
