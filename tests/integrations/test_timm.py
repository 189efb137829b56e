"""timm's networks and transforms with a cache, its task, and what of its loaders is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import decant
from decant.cache import SoftLabelDataset
from decant.pipeline.errors import DataError
from tests.helpers.extras import needs

pytestmark = needs("timm")

CLASSES, SIZE, VIEWS = 4, 32, 2


class Photographs(torch.utils.data.Dataset[tuple[Any, int]]):
    """PIL images of different sizes."""

    def __init__(self, samples: int = 12) -> None:
        generator = np.random.default_rng(0)
        self.images = [
            Image.fromarray(generator.integers(0, 256, (40 + index, 48, 3), dtype=np.uint8))
            for index in range(samples)
        ]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], index % CLASSES


def model(name: str = "resnet10t", **options: Any) -> Any:
    import timm

    torch.manual_seed(3)
    return timm.create_model(name, num_classes=CLASSES, **options)


def transform(**options: Any) -> Any:
    from timm.data import create_transform

    usual = {"auto_augment": "rand-m5-n2", "re_prob": 0.5, "hflip": 0.5}
    return create_transform(SIZE, is_training=True, **{**usual, **options})


def views(samples: int = 12, **options: Any) -> Any:
    return decant.Views(Photographs(samples), transform(**options), count=VIEWS, seed=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a teacher whose weights come from a file, by timm's `checkpoint_path`."""
    folder = tmp_path_factory.mktemp("timm")
    torch.save(model("resnet10t").state_dict(), folder / "teacher.pth")
    teacher = model("resnet10t", checkpoint_path=str(folder / "teacher.pth"))
    return decant.cache_logits(teacher, views(), folder / "teacher.h5", batch_size=4)


def test_a_student_of_a_timm_teacher_learns_by_the_task(cache: Any) -> None:
    from decant.integrations.timm import CachedDistillationTask

    train = SoftLabelDataset(views(), cache, check_inputs="all")
    student, teacher = model("test_byobnet.r160_in1k"), model("resnet10t").eval()
    task = CachedDistillationTask(student, partial(decant.objectives.kd, temperature=2.0))
    optimizer = torch.optim.AdamW(task.get_clip_parameters(), lr=0.01)
    losses = []
    for epoch in range(4 * VIEWS):
        train.set_epoch(epoch)
        for inputs, labels, teacher_logits in DataLoader(train, batch_size=6, shuffle=True):
            with torch.no_grad():
                assert (teacher(inputs) - teacher_logits).abs().max() < 2**-9
            result = task(inputs, labels, teacher_logits)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            expected = 0.1 * result["task_loss"] + 0.9 * result["kd_loss"]
            assert torch.isclose(result["loss"], expected)
        losses.append(float(result["loss"].detach()))
    assert min(losses[-2:]) < losses[0]
    assert set(task.get_checkpoint_state()) == {"state_dict"}


def test_create_loader_is_refused_where_it_sets_its_transform(cache: Any) -> None:
    from timm.data import create_loader

    options = {
        "input_size": (3, SIZE, SIZE),
        "batch_size": 4,
        "is_training": True,
        "device": torch.device("cpu"),
    }
    for dataset in (SoftLabelDataset(views(), cache), views()):
        for prefetcher in (True, False):
            with pytest.raises(TypeError, match=r"transform: .*decant\.Views\(dataset, transform\)"):
                create_loader(dataset, use_prefetcher=prefetcher, num_workers=0, **options)


def test_batches_of_fast_collate_have_no_logits(cache: Any) -> None:
    from timm.data.loader import PrefetchLoader, fast_collate

    from decant.integrations.timm import CachedDistillationTask

    train, task = SoftLabelDataset(views(), cache), CachedDistillationTask(model())
    loader = DataLoader(train, batch_size=4, collate_fn=fast_collate)
    erasing = PrefetchLoader(loader, device=torch.device("cpu"), re_prob=0.9)
    for loading in (loader, erasing):
        batch = next(iter(loading))
        with pytest.raises(DataError, match="no teacher logits: a loader of timm drops them"):
            task(*batch)
    kept = PrefetchLoader(DataLoader(train, batch_size=4), device=torch.device("cpu"), re_prob=0.9)
    with pytest.raises(ValueError, match="too many values"):
        next(iter(kept))


def test_mixup_of_a_batch_is_refused(cache: Any) -> None:
    from timm.data import Mixup

    from decant.integrations.timm import CachedDistillationTask

    train, task = SoftLabelDataset(views(), cache), CachedDistillationTask(model())
    inputs, labels, teacher_logits = next(iter(DataLoader(train, batch_size=4)))
    mixed = Mixup(mixup_alpha=0.2, num_classes=CLASSES)(inputs, labels)
    with pytest.raises(DataError, match="timm's Mixup mixes a batch that the teacher never saw"):
        task(*mixed, teacher_logits)
    shares = CachedDistillationTask(model(), mixed_labels=True)
    assert torch.isfinite(shares(*mixed, teacher_logits)["loss"])
    several = CachedDistillationTask(
        model(), decant.objectives.SigmoidKD()
    )  # whose labels are rows of floats
    assert torch.isfinite(several(inputs, torch.eye(CLASSES)[labels] + 0, teacher_logits)["loss"])


@pytest.mark.parametrize("change", [{"hflip": 0.2}, {"re_prob": 0.1}, {"auto_augment": "rand-m6-n2"}])
def test_one_changed_parameter_of_the_transform_is_refused_by_its_name(cache: Any, change: Any) -> None:
    with pytest.raises(decant.cache.MismatchError, match=r"views\.transform"):
        SoftLabelDataset(views(**change), cache)
