"""Phase one over a folder of JPEGs that nobody has decoded before, against decoding them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.caching import CPU, forward
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare
from decant.cache import Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.data.image_folder import listed_images
from decant.pipeline.data.samples import check_unchanged
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.networks.weights import save_weights
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.ranks.cores import available_cores
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loading import OrderedKeys

_CLASSES = 10
_PHOTO, _SIZE, _BATCH = (375, 500), 64, 32


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 31: photographs with a teacher that costs nothing, into a pack and without one; then, by processor time, with
    one that costs more than decoding.
    """
    count, repetitions = conditions.choose(2_000, 20), conditions.choose(7, 1)
    write_photos(conditions, conditions.folder / "photos", count)
    what = (
        f"`decant cache-logits` of {count:,} JPEGs of 500 × 375, read at {_SIZE} × {_SIZE} for the first time"
    )
    for pack, words in (("always", "into a pack"), ("never", "without a pack")):
        teacher = Teacher(conditions, "linear", pack)
        yield compare(
            31, f"{what}, a linear teacher, {words}", teacher.phase,
            "decoding them in a thread a core", teacher.decode,
            unit=Unit.TIME, target=1.05, repetitions=repetitions,
        )  # fmt: skip
    teacher = Teacher(conditions, "resnet20", "always")
    yield compare(
        31, f"{what}, resnet20, into a pack, processor time", of_processor(teacher.phase),
        "decoding them, and then the teacher on the same batches", of_processor(teacher.apart),
        unit=Unit.TIME, target=1.05, repetitions=conditions.choose(5, 1),
    )  # fmt: skip


class Teacher:
    """A teacher with random weights over a folder of images."""

    def __init__(self, conditions: Conditions, network: str, pack: str) -> None:
        self._folder = conditions.folder / f"{network}-{pack}"
        weights = self._folder / "teacher.safetensors"
        spec = NetworkSpec(network, {}, _CLASSES, (3, _SIZE, _SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
        save_weights(weights, build_network(spec, conditions.seed), {})
        settings = {
            "data": {"name": "imagefolder", "root": str(conditions.folder / "photos"), "pack": pack},
            "views": {"size": _SIZE},
            "teacher": {"network": network, "weights": str(weights), "at_chance": "accept"},
            "cache": {"batch_size": _BATCH},
            "student": {"network": "linear", "epochs": 1},
        }
        self._recipe = Recipe("bench", Settings.model_validate(settings))
        with self._new_store() as store:
            plan = self._plan(store)
            self._network = load_network(make_teacher(plan, CPU)[0]).eval()
            viewed = plan.data.student_train
            keys = OrderedKeys(len(viewed), self._recipe.settings.cache.batch_size)
            self._batches = [viewed.batch(key)[0] for key in keys]
            check_unchanged(viewed.data, checksums=True)

    def phase(self) -> float:
        """Seconds to list, decode and run the teacher, to the published cache and pack."""
        with self._new_store() as store:
            started = time.perf_counter()
            made = cache_logits(self._plan(store), CPU, lambda holder: None)
            took = time.perf_counter() - started
            assert made.rows == sum(map(len, self._batches))
        return took

    def decode(self) -> float:
        """Seconds to list and decode, and to keep nothing."""
        started, settings = time.perf_counter(), self._recipe.settings
        files = listed_images(settings.data, settings.views, "train")
        with ThreadPoolExecutor(available_cores()) as pool:
            for _ in pool.map(files.image, range(len(files))):
                pass
        return time.perf_counter() - started

    def apart(self) -> float:
        """Seconds to decode, and then to compute."""
        return self.decode() + forward(self._network, self._batches, CPU, "float32")

    @contextlib.contextmanager
    def _new_store(self) -> Iterator[Path]:
        """An empty one, which packs go into too."""
        before = os.environ.get("DECANT_STORE")
        with tempfile.TemporaryDirectory(dir=self._folder) as store:
            os.environ["DECANT_STORE"] = store
            try:
                yield Path(store)
            finally:
                os.environ.pop("DECANT_STORE")
                os.environ |= {} if before is None else {"DECANT_STORE": before}

    def _plan(self, store: Path) -> Plan:
        return Plan.of(self._recipe, self._folder, Store(store), decode="ahead")


def of_processor(timed: Timed) -> Timed:
    """The processor's time of all threads, for what shares the cores with others."""

    def run() -> float:
        started = time.process_time()
        timed()
        return time.process_time() - started

    return run


def write_photos(conditions: Conditions, root: Path, count: int) -> None:
    """Random shapes with some noise, so that they take about as many bytes as photographs do."""
    random = conditions.random()
    write = partial(_write, root, random.integers(0, 256, (24, 32, 3)), random.integers(0, 24, (*_PHOTO, 3)))
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(write, range(count)))


def _write(root: Path, shapes: np.ndarray, noise: np.ndarray, index: int) -> None:
    path = root / ("train" if index >= _CLASSES else "test") / str(index % _CLASSES) / f"{index:06d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    rolled = np.roll(shapes, index, axis=(0, 1)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(rolled).resize(_PHOTO[::-1], Image.Resampling.BICUBIC))
    Image.fromarray((smooth // 2 + np.roll(noise, index, axis=1) + 50).astype(np.uint8)).save(
        path, quality=90
    )
