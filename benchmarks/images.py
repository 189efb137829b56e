"""Random images as large as CIFAR's, as arrays, as views, with a cache, and as a recipe's data."""

from __future__ import annotations

import numpy as np

from benchmarks.conditions import Conditions
from decant.cache import LogitCache, LogitCacheWriter, Manifest, SoftLabelDataset
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.views import ViewedData

CLASSES = 10
SHAPE = (3, 32, 32)
AUGMENT = ({"op": "pad-crop", "padding": 4}, {"op": "flip"})


def viewed(conditions: Conditions, count: int) -> ViewedData:
    """Padded, cropped and flipped views of `count` images."""
    images, labels = _random(count, conditions.seed)
    data = ArrayData("bench", "train", images, labels, tuple(map(str, range(CLASSES))))
    return ViewedData(data, ViewsSettings.model_validate({"augment": AUGMENT}))


def digits(conditions: Conditions, count: int) -> ViewedData:
    """`count` images as large as the digits', as they are."""
    images, labels = _random(count, conditions.seed, (1, 8, 8))
    data = ArrayData("bench", "train", images, labels, tuple(map(str, range(CLASSES))))
    return ViewedData(data, ViewsSettings())


def labelled(conditions: Conditions, data: ViewedData) -> SoftLabelDataset:
    """With a cache of random logits, and the checksums of the very views."""
    return SoftLabelDataset(data, _cache(conditions, data))


def _cache(conditions: Conditions, data: ViewedData) -> LogitCache:
    path = conditions.folder / f"images-{data.input_shape[-1]}-{len(data)}.h5"
    if not path.exists():
        manifest = Manifest.build(num_samples=len(data), num_outputs=CLASSES, data={"name": "bench"})
        indices = np.arange(len(data))
        inputs, labels = data.batch(np.stack([indices, np.zeros_like(indices)], axis=1))
        logits = conditions.random().standard_normal((len(data), CLASSES), dtype=np.float32)
        logits[indices, labels.numpy()] += 5  # or it would be doubted that a teacher gave them
        with LogitCacheWriter(path, manifest) as writer:
            writer.write(indices, logits, labels=labels.numpy(), inputs=inputs)
            writer.publish()
    return LogitCache.open(path)


class _Samples(list[tuple[np.ndarray, int]]):
    """A map-style dataset."""

    classes = tuple(map(str, range(CLASSES)))


def dataset(root: str, split: str) -> _Samples:
    """What a recipe names `benchmarks.images:dataset`; its root is COUNT-SEED."""
    count, seed = map(int, root.split("-"))
    images, labels = _random(count if split == "train" else 256, seed)
    return _Samples(zip(images, labels.tolist(), strict=True))


def _random(count: int, seed: int, shape: tuple[int, ...] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, *shape), dtype=np.uint8), random.integers(0, CLASSES, count)
