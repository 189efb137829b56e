"""Phase one on a GPU over photographs, which threads or processes decode meanwhile."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.caching import forward
from benchmarks.conditions import Conditions
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed
from decant.cache import Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.data.image_folder import listed_images
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.networks.weights import save_weights
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.loading import OrderedKeys

_CLASSES, _SIZE, _BATCH = 10, 224, 256
_NETWORK = "torchvision:resnet50"


def measure(conditions: Conditions, device: torch.device) -> Iterator[Measurement]:
    """A part of row 15."""
    count, drawn = conditions.choose((96 * _BATCH, 1_024), (32, 16))
    root = conditions.folder / "photos"
    _write(conditions, root, count, drawn)
    phase, bare, decode = _timed(conditions, root, device)
    bare()  # warms up
    seconds, bare_seconds, decoding = phase(), bare(), decode()
    cores = len(os.sched_getaffinity(0))
    yield Measurement(
        15, f"`decant cache-logits` on {device}, resnet50, {count:,} JPEGs of 224 × 224, bfloat16, decoded by "
        f"threads or processes on {cores} cores", "the teacher on the same batches, in memory already",
        bare_seconds / seconds, Unit.RATE, 0.95,
        note=f"{count / seconds:,.0f} of {count / bare_seconds:,.0f} images/s; decoding alone {count / decoding:,.0f}",
        details={"seconds": seconds, "against_seconds": bare_seconds, "decoding_seconds": decoding},
    )  # fmt: skip


def _timed(conditions: Conditions, root: Path, device: torch.device) -> tuple[Timed, Timed, Timed]:
    folder = conditions.folder / "of-photos"
    weights = folder / "teacher.safetensors"
    spec = NetworkSpec(_NETWORK, {}, _CLASSES, (3, _SIZE, _SIZE), mean=(0.5,) * 3, std=(0.25,) * 3)
    save_weights(weights, build_network(spec, conditions.seed), {})
    settings = {
        "data": {"name": "imagefolder", "root": str(root), "pack": "never"},
        "views": {"size": _SIZE},
        "teacher": {"network": _NETWORK, "weights": str(weights), "at_chance": "accept"},
        "cache": {"batch_size": _BATCH, "precision": "bfloat16"},
        "student": {"network": "linear", "epochs": 1},
    }
    recipe = Recipe("bench", Settings.model_validate(settings))
    plan = Plan.of(recipe, folder, Store(folder / "no-store"))
    network = load_network(make_teacher(plan, device)[0]).to(device).eval()
    network.to(memory_format=torch.channels_last)
    viewed = plan.data.student_train
    keys = list(OrderedKeys(len(viewed), _BATCH))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        batches = [batch[0].to(device) for batch in pool.map(viewed.batch, keys)]

    def phase() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as store:
            plan = Plan.of(recipe, folder, Store(Path(store)), decode="ahead")
            made = cache_logits(plan, device, lambda holder: None)
        assert made.seconds is not None
        assert made.rows == len(viewed)
        return made.seconds

    def decode() -> float:
        files = listed_images(recipe.settings.data, recipe.settings.views, "train")
        started = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(files.image, range(len(files)), chunksize=32):
                pass
        return time.perf_counter() - started

    return phase, lambda: forward(network, batches, device, "bfloat16"), decode


def _write(conditions: Conditions, root: Path, count: int, drawn: int) -> None:
    """As many files, of which `drawn` are different photographs: smooth shapes with some noise, about as many bytes as
    photographs have.
    """
    random = conditions.random()
    shapes = random.integers(0, 256, (drawn, 14, 14, 3), dtype=np.uint8)
    noise = random.integers(0, 24, (_SIZE, _SIZE, 3), dtype=np.uint8)
    (root / "drawn").mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_draw, root, shapes, noise), range(drawn)))
    for part, files in (("train", count), ("test", 2 * _CLASSES)):
        for name in range(_CLASSES):
            (root / part / str(name)).mkdir(parents=True)
        for index in range(files):
            os.link(
                root / "drawn" / f"{index % drawn}.jpg",
                root / part / str(index % _CLASSES) / f"{index:06d}.jpg",
            )


def _draw(root: Path, shapes: np.ndarray, noise: np.ndarray, index: int) -> None:
    smooth = np.asarray(Image.fromarray(shapes[index]).resize((_SIZE, _SIZE), Image.Resampling.BICUBIC))
    pixels = smooth // 2 + np.roll(noise, index, axis=1) + 50
    Image.fromarray(pixels.astype(np.uint8)).save(root / "drawn" / f"{index}.jpg", quality=90)
