"""Phase one, against the teacher's bare arithmetic."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.conditions import Conditions
from benchmarks.images import AUGMENT
from benchmarks.measurement import Measurement, Unit
from benchmarks.timing import Timed, compare
from decant.cache import Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.networks.weights import save_weights
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.training.device import autocast
from decant.pipeline.training.loading import OrderedKeys

CPU = torch.device("cpu")


def measure(
    conditions: Conditions, row: int = 5, device: torch.device = CPU, count: int = 20_000
) -> Iterator[Measurement]:
    """Row 5, for each precision: from the first batch to the published file, and the same batches already in memory. On
    a processor also against PyTorch whose allocator is as it was, for fewer images.
    """
    count = conditions.choose(count, 512)
    for precision in ("float32", "bfloat16"):
        phase, bare = phase_one(conditions, device, count, precision)
        yield compare(
            row, f"`decant cache-logits` on {device}, resnet20, {count:,} CIFAR-sized images, {precision}",
            phase, "the teacher on the same batches, in memory already", bare,
            unit=Unit.TIME, target=1.05, repetitions=conditions.choose(5, 1),
        )  # fmt: skip
    if device.type != "cpu":
        return
    few = conditions.choose(5_120, 512)
    for precision in ("float32", "bfloat16"):
        phase, bare = phase_one(conditions, device, few, precision, kept=False)
        yield compare(
            row, f"the same, {few:,} images, {precision}",
            phase, "the teacher on the same batches, where glibc gives freed memory back", bare,
            unit=Unit.TIME, repetitions=conditions.choose(5, 1),
        )  # fmt: skip


def phase_one(
    conditions: Conditions, device: torch.device, count: int, precision: str, kept: bool = True
) -> tuple[Timed, Timed]:
    """Phase one, and the bare pass, whose freed memory is `kept` as phase one keeps it."""
    base = conditions.folder / f"caching-{device.type}"
    recipe = random_images(conditions, base, count, precision)
    splits, result = taught(conditions, recipe, base, device)
    network = load_network(result).to(device).to(memory_format=torch.channels_last).eval()
    keys = OrderedKeys(count, recipe.settings.cache.batch_size)
    batches = [splits.student_train.batch(key)[0].to(device) for key in keys]

    def phase() -> float:
        with tempfile.TemporaryDirectory(dir=conditions.folder) as store:
            made = cache_logits(Plan.of(recipe, base, Store(Path(store))), device, lambda holder: None)
        assert made.seconds is not None
        assert made.rows == count
        return made.seconds

    return phase, lambda: forward(network, batches, device, precision, kept)


def taught(
    conditions: Conditions, recipe: Recipe, folder: Path, device: torch.device = CPU
) -> tuple[Splits, Result]:
    """The data of a recipe of `random_images`, and its teacher in a run folder."""
    splits = Splits.load(recipe.settings)
    spec = specify_network(recipe.settings.teacher.network, splits.student_train)
    weights = recipe.settings.teacher.weights
    assert isinstance(weights, str)
    save_weights(Path(weights), build_network(spec, conditions.seed), {})
    result, _ = make_teacher(Plan.of(recipe, folder), device)
    return splits, result


@torch.inference_mode()
def forward(
    network: nn.Module, batches: list[Tensor], device: torch.device, precision: str, kept: bool = True
) -> float:
    """Seconds of the network's bare arithmetic on batches that lie on the device. `kept`: on a processor freed memory
    stays with the process, as in phase one.
    """
    synchronize(device)
    started = time.perf_counter()
    with freed_memory_kept() if kept else nullcontext(), autocast(device, precision):
        for inputs in batches:
            network(inputs.contiguous(memory_format=torch.channels_last))
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Waits for a GPU; a CPU is never behind."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_images(conditions: Conditions, base: Path, count: int, precision: str) -> Recipe:
    """A teacher with random weights, taken as it is."""
    settings = {
        "data": {"name": "benchmarks.images:dataset", "root": f"{count}-{conditions.seed}"},
        "views": {"augment": AUGMENT},
        "teacher": {"network": "resnet20", "weights": str(base / "teacher.safetensors")},
        "cache": {"precision": precision},
        "student": {"network": "resnet8", "epochs": 1},
    }
    return Recipe("bench", Settings.model_validate(settings))
