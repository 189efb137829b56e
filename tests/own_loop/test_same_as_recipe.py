"""The library's path against the recipe's: the same rows of the cache, and the same losses of a student, bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import decant
from decant.cache import LogitCache, LogitCacheWriter, Manifest, SoftLabelDataset
from decant.pipeline.config.settings import CacheSettings, ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.phases.teacher_pass import fill
from decant.pipeline.training.loading import ShuffledKeys, loader
from decant.pipeline.views import ViewedData

N, CLASSES, V, SEED = 50, 4, 3, 11
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 3, 9, 9), dtype=np.uint8)
LABELS = np.arange(N) % CLASSES
NAMES = tuple("abcd")
CHAINS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "crop and flip": (
        [{"op": "pad-crop", "padding": 2}, {"op": "flip"}],
        [decant.views.pad_crop(2), decant.views.flip()],
    ),
    "crop, colours and erasing": (
        [{"op": "random-resized-crop"}, {"op": "color-jitter"}, {"op": "random-erasing"}],
        [decant.views.random_resized_crop(), decant.views.color_jitter(), decant.views.random_erasing()],
    ),
    "a transform of torchvision": (
        [{"op": "transform", "name": "torchvision:RandomRotation", "degrees": 20}, {"op": "flip"}],
        [v2.RandomRotation(20), decant.views.flip()],
    ),
    "mixup": (
        [{"op": "flip"}, {"op": "mixup", "alpha": 1.0}],
        [decant.views.flip(), decant.views.mixup(1.0)],
    ),
    "cutmix": ([{"op": "cutmix"}, {"op": "flip"}], [decant.views.cutmix(), decant.views.flip()]),
}


class Data(TensorDataset):
    classes = NAMES


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)

    class Scaled(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1).float() / 255

    return nn.Sequential(Scaled(), nn.Linear(243, width), nn.ReLU(), nn.Linear(width, CLASSES))


@pytest.mark.filterwarnings("ignore:.*likely not a trained teacher")
@pytest.mark.parametrize("chain", CHAINS)
def test_rows_and_losses_are_those_of_the_recipe(chain: str, tmp_path: Path) -> None:
    augment, steps = CHAINS[chain]
    settings = ViewsSettings.model_validate({"count": V, "seed": SEED, "augment": tuple(augment)})
    viewed = ViewedData(ArrayData("test", "train", IMAGES, LABELS, NAMES), settings)
    views = decant.Views(Data(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)), steps, count=V, seed=SEED)
    teacher = network(32, seed=1).eval()

    manifest = Manifest.build(num_samples=N, num_outputs=CLASSES, num_views=V)
    with LogitCacheWriter(tmp_path / "recipe.h5", manifest) as writer:
        fill(writer, viewed, teacher, CacheSettings(batch_size=16), torch.device("cpu"))
        theirs = LogitCache.open(writer.publish())
    ours = decant.cache_logits(teacher, views, tmp_path / "library.h5", batch_size=16)
    for view in range(V):
        assert ours.logits(slice(None), view).tobytes() == theirs.logits(slice(None), view).tobytes()
    assert ours.input_crc32.tobytes() == theirs.input_crc32.tobytes()
    if not views.mixes_labels:
        assert ours.labels.tobytes() == theirs.labels.tobytes()

    recipe = SoftLabelDataset(viewed, theirs, compare_labels=not viewed.mixes_labels)
    order = ShuffledKeys(N, 10, 5, viewed.cached_views)
    assert losses(own_batches(views, ours, order)) == losses(recipe_batches(recipe, order))


def recipe_batches(train: SoftLabelDataset, order: ShuffledKeys) -> Any:
    """The batches of each epoch, as a recipe's training reads them."""
    batches = loader(train, order)
    for epoch in range(2 * V):
        order.epoch = epoch
        yield from batches


def own_batches(views: decant.Views, cache: LogitCache, order: ShuffledKeys) -> Any:
    """The same from a plain DataLoader of indices, with workers for one epoch."""
    train = SoftLabelDataset(views, cache)
    for epoch in range(2 * V):
        train.set_epoch(epoch)
        order.epoch = epoch
        indices = [batch[:, 0].tolist() for batch in order]
        yield from DataLoader(train, batch_sampler=indices, num_workers=2 if epoch == V else 0)


def losses(batches: Any) -> list[float]:
    """The loss of each step of a student in a plain loop."""
    student = network(8, seed=2)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    found = []
    for images, labels, teacher_logits in batches:
        loss = decant.objectives.kd(student(images), teacher_logits, labels, alpha=0.9, temperature=4.0).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found
