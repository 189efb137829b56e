"""A DataLoader over a SoftLabelDataset, against one over the bare dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cache import LogitCache, LogitCacheWriter, Manifest, SoftLabelDataset
from cache.dataset import input_crc32
from pipeline.loading import BatchedData, ShuffledKeys, loader
from pipeline.samples import ArrayData
from pipeline.settings import ViewsSettings
from pipeline.views import ViewedData
from tests.bench.timing import Measurement, compare

CLASSES = 10
AUGMENT = ({"op": "pad-crop", "padding": 4}, {"op": "flip"})


def measure(folder: Path, quick: bool) -> Iterator[Measurement]:
    """A row for each number of workers."""
    views = ViewsSettings.model_validate({"augment": AUGMENT})
    viewed = ViewedData(_images(5_000 if quick else 50_000), views)
    labelled = SoftLabelDataset(viewed, _write(folder, viewed), check_inputs="sample")
    for workers in (0, 2):
        yield compare(
            f"epoch over SoftLabelDataset, CIFAR-sized, {workers} workers",
            _epoch(labelled, workers),
            "epoch over the bare dataset",
            _epoch(viewed, workers),
            target="≥ 0.97",
            repetitions=3 if quick else 9,
        )


def _images(count: int) -> ArrayData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return ArrayData("bench", "train", images, random.integers(0, CLASSES, count), ())


def _write(folder: Path, viewed: ViewedData) -> LogitCache:
    manifest = Manifest.build(num_samples=len(viewed), num_outputs=CLASSES, data={"name": "bench"})
    indices = np.arange(len(viewed))
    inputs, labels = viewed.batch(np.stack([indices, np.zeros_like(indices)], axis=1))
    with LogitCacheWriter(folder / "loading.h5", manifest) as writer:
        checksums = np.array([input_crc32(image) for image in inputs], np.uint32)
        logits = np.random.default_rng(2).standard_normal((len(viewed), CLASSES), dtype=np.float32)
        writer.write(indices, logits, labels=labels.numpy(), input_crc32=checksums)
        return LogitCache.open(writer.publish())


def _epoch(data: BatchedData, workers: int) -> Callable[[], object]:
    batches = loader(data, ShuffledKeys(len(data), 256, seed=0), workers)

    def run() -> object:
        for batch in batches:
            last = batch
        return last

    return run
