"""A cache and a loop of one's own: files that are listed in another order, pictures as torchvision gives them, four
views, a teacher that overflows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import decant as package
from decant.cache import LogitCache, LogitCacheWriter, Manifest, MismatchError, SoftLabelDataset
from tests.field.conftest import draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed


class Listed(Dataset[Any]):
    """Pictures in the order in which a folder lists them, which another disk turns around."""

    def __init__(self, root: Path, backwards: bool = False) -> None:
        self.items = [
            (path, label)
            for label, name in enumerate(sorted(path.name for path in root.iterdir()))
            for path in sorted((root / name).glob("*.png"), reverse=backwards)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        path, label = self.items[index]
        return torch.from_numpy(np.asarray(Image.open(path)).transpose(2, 0, 1).copy()), label


def test_files_listed_in_another_order_are_noticed(tmp_path: Path) -> None:
    """The labels agree, as classes are listed in one order: the inputs tell."""
    root = draw(tmp_path / "images", train=6, test=1) / "train"
    data = Listed(root)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
    manifest = Manifest.build(num_samples=len(data), num_outputs=3)
    with LogitCacheWriter(tmp_path / "mine.h5", manifest) as writer:
        first = 0
        for inputs, labels in DataLoader(data, batch_size=5):
            rows = np.arange(first, first + len(labels))
            writer.write(rows, teacher(inputs.float() / 255), labels=labels, inputs=inputs)
            first += len(labels)
        cache = LogitCache.open(writer.publish())
    for check in ("sample", "all"):
        right = SoftLabelDataset(data, cache, check_inputs=check)  # type: ignore[arg-type]
        assert sum(len(labels) for _, labels, _ in DataLoader(right, batch_size=5, shuffle=True)) == len(data)
        wrong = SoftLabelDataset(Listed(root, backwards=True), cache, check_inputs=check)  # type: ignore[arg-type]
        with pytest.raises(MismatchError, match="not what the teacher saw"):
            list(DataLoader(wrong, batch_size=5, shuffle=True))


VIEWS = '\n[views]\ncount = 4\naugment = [{ op = "flip" }]\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of one view and of four, of a recipe."""
    folder = tmp_path_factory.mktemp("loop")
    draw(folder / "images", train=4, test=2)
    for name, more in (("one.toml", ""), ("four.toml", VIEWS)):
        write_recipe(folder, folder / "images", '"linear"', "epochs = 1\nlr = 0.01" + more, name)
        for phase in ("teacher", "cache-logits"):
            succeed(decant(phase, "--recipe", name, cwd=folder))
    return folder


def cache_of(made: Path, views: int) -> LogitCache:
    (found,) = [
        cache for path in made.glob("caches/*.h5") if (cache := LogitCache.open(path)).num_views == views
    ]
    return found


@pytest.mark.parametrize("transform", [None, transforms.ToTensor(), transforms.PILToTensor()])
def test_pictures_are_taken_as_torchvision_gives_them(made: Path, transform: Any) -> None:
    data = ImageFolder(made / "images/train", transform)
    train = SoftLabelDataset(data, cache_of(made, 1), check_inputs="all")
    assert [train[index][1] for index in range(len(train))] == data.targets
    with pytest.raises(
        MismatchError, match=r"has 4 views, and ImageFolder takes an index alone.*decant\.recipe_dataset"
    ):
        SoftLabelDataset(data, cache_of(made, 4))[0, 1]


def test_a_normalised_picture_is_named_as_such(made: Path) -> None:
    normalised = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.2] * 3)])
    train = SoftLabelDataset(ImageFolder(made / "images/train", normalised), cache_of(made, 1))
    with pytest.raises(MismatchError, match="normalised or resized after the teacher saw it"):
        train[0]


def test_a_teacher_that_overflows_half_precision_is_told_of_float32(tmp_path: Path) -> None:
    draw(tmp_path / "images", train=2, test=1)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Loud(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1)) * (1 if self.training else 1e7)\n"
        "def net(num_classes, input_shape):\n"
        "    return Loud(192, num_classes)\n"
    )
    recipe = write_recipe(tmp_path, tmp_path / "images", '"mine:net"', "epochs = 1\nlr = 0.01")
    succeed(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    said = refused(decant("cache-logits", "--recipe", recipe, cwd=tmp_path))
    assert 'cache.dtype = "float32"' in said
    assert len(said.splitlines()) == 1
    succeed(decant("cache-logits", "--recipe", recipe, "--set", "cache.dtype=float32", cwd=tmp_path))
    assert only(tmp_path, "caches/*.h5")


def test_several_labels_a_sample_are_learnt_in_ones_own_loop(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = (random.random((60, 3)) < 0.5).astype(np.float32)
    images = torch.from_numpy(
        random.normal(labels.repeat(16, 1).reshape(60, 3, 4, 4), 0.3).astype(np.float32)
    )
    truth, logits = torch.from_numpy(labels.copy()), 6 * labels - 3
    labels[7, 1] = np.nan
    data = {"name": "lamps", "task": "multilabel"}
    manifest = Manifest.build(num_samples=60, num_outputs=3, num_targets=3, data=data)
    with LogitCacheWriter(tmp_path / "lamps.h5", manifest) as writer:
        writer.write(range(60), logits, labels=labels, inputs=images)
        cache = LogitCache.open(writer.publish())
    torch.manual_seed(0)
    train = SoftLabelDataset(TensorDataset(images, torch.from_numpy(labels)), cache, check_inputs="all")
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.05)
    for _ in range(10):
        for inputs, answers, teacher_logits in DataLoader(train, batch_size=16, shuffle=True):
            loss = package.objectives.sigmoid_kd(
                student(inputs), teacher_logits, answers, alpha=0.5, temperature=2.0
            )
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
    assert ((student(images) > 0).float() == truth).float().mean() > 0.95
    relabelled = torch.from_numpy(labels.copy())
    relabelled[3] = 1 - relabelled[3]
    with pytest.raises(MismatchError, match="sample 3: its label is"):
        SoftLabelDataset(TensorDataset(images, relabelled), cache)[3]
    for form in (truth.bool(), truth.int(), truth.double()):  # what is unknown in the cache is not compared
        SoftLabelDataset(TensorDataset(images, form), cache).__getitems__(range(60))
