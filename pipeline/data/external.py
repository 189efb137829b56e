"""A dataset of the user's, `package.module:function`: any map-style dataset of (input, label)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.image_decode import alike, to_array
from decant.pipeline.data.labels import Label, as_label, as_labels, is_label
from decant.pipeline.data.samples import MAX_ARRAY_BYTES, NO_LABEL, ArrayData, LabelledData, Split, spread
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import Plugin
from decant.pipeline.support.progress import track

_PROBES = 256  # samples that stand for all in the digest of a dataset that is too large to read whole


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
    found_labels: list[Label] = []
    for index in track(range(len(data)), f"reading {settings.name}"):
        value, label = data.sample(index)
        found_labels.append(label)
        if fits:
            inputs[index] = value
    data.labels = labels = as_labels(found_labels, f"{settings.name}: {split}")
    return ArrayData(settings.name, split, inputs, labels, classes) if fits else data


@dataclass
class SampleData:
    """A map-style dataset of the user's, each sample read when it is needed."""

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
        """The input whose shape and dtype all others must have."""
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
        """Of the labels and of a fixed set of samples; all of them would take a pass over the data."""
        inputs = self.raw(spread(len(self), _PROBES))
        digest = hashlib.sha256(f"{len(self)} {inputs.shape} {inputs.dtype.str}".encode())
        digest.update(self.labels.data)
        digest.update(inputs.data)
        return digest.hexdigest()

    def _read(self, index: int) -> tuple[NDArray[Any], Label]:
        try:
            value, label = self.dataset[index]
            return to_array(value, self.views), as_label(label)
        except Exception as error:  # reading a sample runs the user's code, which may raise anything
            raise DataError(
                f"{self.name}: {self.split}: sample {index}: expected (input, label), found "
                f"{type(error).__name__}: {error}"
            ) from error


def _call(settings: DataSettings, split: Split) -> Any:
    """The dataset that the function returns. Raises DataError where there is no such function, or it fails."""
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
