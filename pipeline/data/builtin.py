"""Where data come from, but for image folders: each function brings one kind of source to `LabelledData`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.image_decode import alike, resized, to_array
from decant.pipeline.data.labels import Label, as_label, as_labels, is_label
from decant.pipeline.data.samples import MAX_ARRAY_BYTES, NO_LABEL, ArrayData, LabelledData, Split, spread
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import Plugin, optional
from decant.pipeline.support.progress import track

TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
}
_DIGITS_TEST = 360  # of 1,797
_PROBES = 256  # samples that stand for all in the digest of what is too large to read whole


def digits(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's digits: 1,797 images of 8 × 8, 16 grey levels; a fixed stratified fifth is the test
    part. Raises DataError where scikit-learn is not installed.
    """
    datasets = optional("sklearn.datasets", "demo", DataError)
    model_selection = optional("sklearn.model_selection", "demo", DataError)
    bunch = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(bunch.target)), test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    chosen = np.sort(train if split == "train" else test)
    images = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target[chosen].astype(np.int64)
    return ArrayData("digits", split, resized(images, views), labels, tuple("0123456789"))


def from_torchvision(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """One of torchvision's small sets, downloaded to `root` when it is not there."""
    import torchvision.datasets

    factory = getattr(torchvision.datasets, TORCHVISION[settings.name])
    part = {"split": split} if settings.name == "svhn" else {"train": split == "train"}
    try:
        dataset = factory(settings.root, download=True, **part)
    except Exception as error:  # torchvision's readers raise what their decoders do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{settings.name}: cannot be read from {settings.root!r}, nor downloaded there ({reason}); "
            "set data.root to where it is, or try again with a network"
        ) from None
    images = np.asarray(dataset.data)
    if settings.name != "svhn":  # (N, H, W, C), or (N, H, W) where grey
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.asarray(dataset.labels if settings.name == "svhn" else dataset.targets, dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or map(str, range(10)))
    return ArrayData(settings.name, split, resized(np.ascontiguousarray(images), views), labels, classes)


def from_function(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`package.module:function`, called with (root, split): any map-style dataset of (input, label).

    Inputs are images (PIL, or uint8 arrays or tensors (C, H, W)) or float arrays, all of one shape; a label
    is an integer, or a float or a row of them for a regression, or None. A part that is larger than
    MAX_ARRAY_BYTES is read as it is needed; its labels are the dataset's `targets` where it has them.
    """
    dataset = _call(settings, split)
    classes = tuple(map(str, getattr(dataset, "classes", None) or ()))
    if not len(dataset):
        raise DataError(f"{settings.name}: {split}: no samples")
    data = SampleData(settings.name, split, dataset, np.full(len(dataset), NO_LABEL), classes, views)
    fits = len(data) * data.first.nbytes <= MAX_ARRAY_BYTES
    if not fits and (targets := getattr(dataset, "targets", None)) is not None:
        data.labels = as_labels([as_label(target) for target in targets], f"{settings.name}: {split}")
        return data
    inputs = np.empty((len(data) if fits else 0, *data.input_shape), data.first.dtype)
    found: list[Label] = []
    for index in track(range(len(data)), f"reading {settings.name}"):
        value, label = data.sample(index)
        found.append(label)
        if fits:
            inputs[index] = value
    data.labels = labels = as_labels(found, f"{settings.name}: {split}")
    return ArrayData(settings.name, split, inputs, labels, classes) if fits else data


@dataclass
class SampleData:
    """Somebody's map-style dataset, read as it is asked for."""

    name: str
    split: Split
    dataset: Any
    labels: NDArray[Any]
    classes: tuple[str, ...]
    views: ViewsSettings

    lazy = True

    def __len__(self) -> int:
        return len(self.dataset)

    @cached_property
    def first(self) -> NDArray[Any]:
        """The input that all others must be like."""
        return self._read(0)[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.first.shape

    def sample(self, index: int) -> tuple[NDArray[Any], Label]:
        """Input and label. Raises DataError, naming the sample, where it cannot be read or is unlike others."""
        value, label = self._read(index)
        return alike(value, self.first, f"{self.name}: {self.split}: sample {index}"), label

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        inputs, labels = zip(*(self.sample(index) for index in indices.tolist()), strict=True)
        for index, label in zip(indices.tolist(), labels, strict=True):
            if not is_label(self.labels[index], label):
                raise DataError(
                    f"{self.name}: {self.split}: sample {index}: its label was {self.labels[index]}, "
                    f"and now is {label}"
                )
        return np.stack(inputs)

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Of the labels, and of a fixed set of probes: all would take a pass over the data."""
        inputs = self.raw(spread(len(self), _PROBES))
        digest = hashlib.sha256(f"{len(self)} {inputs.shape} {inputs.dtype.str}".encode())
        digest.update(self.labels.data)
        digest.update(inputs.data)
        return digest.hexdigest()

    def _read(self, index: int) -> tuple[NDArray[Any], Label]:
        try:
            value, label = self.dataset[index]
            return to_array(value, self.views), as_label(label)
        except Exception as error:  # reading a sample runs a person's code: anything can come of it
            raise DataError(
                f"{self.name}: {self.split}: sample {index}: expected (input, label), found "
                f"{type(error).__name__}: {error}"
            ) from error


def _call(settings: DataSettings, split: Split) -> Any:
    """The dataset that one's own function returns. Raises DataError where there is no such function, or it fails."""
    plugin = Plugin(settings.name, f"data.name {settings.name!r}", DataError)
    function = plugin.load()
    plugin.check_arguments(function, root=settings.root, split=split)
    try:
        dataset = function(root=settings.root, split=split)
        len(dataset), dataset.__getitem__
    except Exception as error:  # the function may raise anything
        raise plugin.refusal(
            "called with root and split, it must return a dataset with a length and items "
            f"({type(error).__name__}: {error})"
        ) from error
    return dataset
