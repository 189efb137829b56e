"""A dataset of the user's, `package.module:function`: any map-style dataset of (input, label)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import read_item, require_map_style
from decant.cache.io.redaction import HIDDEN
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.config.tasks import SIGMOID, Task
from decant.pipeline.data.doubts import check_inputs
from decant.pipeline.data.input_arrays import alike, to_array
from decant.pipeline.data.items import split_item
from decant.pipeline.data.labels import Label, as_label, as_labels, from_one_hot, is_label, places_of
from decant.pipeline.data.samples import MAX_ARRAY_BYTES, NO_LABEL, ArrayData, LabelledData, Split, spread
from decant.pipeline.data.shared_items import read_items
from decant.pipeline.data.sigmoid_labels import unknown_as_nan
from decant.pipeline.errors import DataError
from decant.pipeline.ranks.job import joined
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.plugins import Plugin

_READ_TWICE = 8  # samples
_PROBES = 256  # samples whose values are looked at, and that stand for all in the digest of what is too large to hold


def from_function(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`package.module:function`, called with (root, split): any map-style dataset of (input, label), or of items that
    hold the two at `data.keys`.

    Inputs are images (PIL, or uint8 arrays or tensors (C, H, W)) or float arrays, all of one shape; a label
    is an integer, the name of a class, or a float or a row of them for a regression, or None. Labels that are all
    one-hot are taken as their classes. A part that is larger than MAX_ARRAY_BYTES is read as it is needed; its labels
    are the dataset's `targets` where it has them.
    """
    dataset = _call(settings, split)
    return from_dataset(dataset, _class_names(dataset, settings), settings, views, split)


def from_dataset(
    dataset: Any, classes: tuple[str, ...], settings: DataSettings, views: ViewsSettings, split: Split
) -> LabelledData:
    """A map-style dataset as `from_function` takes it, with the names of its classes."""
    if not len(dataset):
        raise DataError(f"{settings.name}: {split}: no samples")
    data = SampleData(
        settings.name, split, dataset, np.full(len(dataset), NO_LABEL), classes, views, settings
    )
    fits = len(data) * data.first.nbytes <= MAX_ARRAY_BYTES
    if not fits and (targets := getattr(dataset, "targets", None)) is not None:
        data.take_labels([data.label(target, index) for index, target in enumerate(targets)])
        return data
    inputs = np.empty((len(data) if fits else 0, *data.input_shape), data.first.dtype)
    data.take_labels(read_items(data.sample, len(data), settings.name, inputs if fits else None))
    if not fits:
        return data
    _require_the_same_again(data, inputs)
    chosen = spread(len(data), _PROBES)
    check_inputs(inputs[chosen], chosen, settings.name, split)
    return ArrayData(settings.name, split, inputs, data.labels, data.classes)


def _require_the_same_again(data: SampleData, inputs: NDArray[Any]) -> None:
    """Reads a few samples once more. Raises DataError where one is another one now: its logits could not be kept. What
    another rank of a job has read must be what this one reads, labels too.
    """
    of_ranks = joined() is not None
    hint = ": every rank of a job needs the same data" if of_ranks else ""
    for index in spread(len(data), _READ_TWICE).tolist():
        again, label = data.sample(index)
        where = f"{data.name}: {data.split}: sample {index}"
        if of_ranks and not data.has_label(index, label):
            raise DataError(f"{where}: its label was {data.labels[index]}, and now is {label}{hint}")
        if again.tobytes() != inputs[index].tobytes():
            raise DataError(
                f"{where}: is another input each time it is read, and logits are kept for one: leave random "
                "transforms out of the dataset, and give them as views.augment "
                f'({{ op = "transform", name = "package.module:function" }} for your own){hint}'
            )


@dataclass
class SampleData:
    """A map-style dataset of the user's, each sample read when it is needed."""

    name: str
    split: Split
    dataset: Any
    labels: NDArray[Any]
    classes: tuple[str, ...]
    views: ViewsSettings
    settings: DataSettings
    task: Task | None = None
    """What the recipe says of the labels, once they are taken."""

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

    @cached_property
    def _places(self) -> dict[str, int]:
        return places_of(self.classes)

    def label(self, value: Any, index: int) -> Label:
        """A label of the dataset's, of any form. Raises DataError, naming the sample."""
        try:
            return as_label(value, self._places, self.settings.task)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self.name}: {self.split}: sample {index}: {error}") from None

    def take_labels(self, per_sample: Sequence[Label]) -> None:
        """Takes the labels of all samples; one-hot rows become classes, which is said. Raises DataError."""
        where = f"{self.name}: {self.split}"
        width = None
        if self.settings.task in (None, "classification"):
            per_sample, width = from_one_hot(per_sample)
        if width is not None:
            if self.classes and len(self.classes) != width:
                raise DataError(
                    f"{where}: labels are one-hot rows of {width}, and there are {len(self.classes)} classes"
                )
            self.classes = self.classes or tuple(map(str, range(width)))
            say_once(
                f"{where}: labels are one-hot rows of {width}, and are taken as their classes",
                about=f"one-hot labels of {self.name}",
            )
        self.labels = as_labels(per_sample, where)

    def sample(self, index: int) -> tuple[NDArray[Any], Label]:
        """Input and label. Raises DataError, naming the sample, where it cannot be read or is unlike others."""
        value, label = self._read(index)
        return alike(value, self.first, f"{self.name}: {self.split}: sample {index}"), label

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        inputs, labels = zip(*(self.sample(index) for index in indices.tolist()), strict=True)
        for index, label in zip(indices.tolist(), labels, strict=True):
            if not self.has_label(index, label):
                raise DataError(
                    f"{self.name}: {self.split}: sample {index}: its label was {self.labels[index]}, "
                    f"and now is {label}"
                )
        return np.stack(inputs)

    def has_label(self, index: int, label: Label) -> bool:
        """Whether a label that was read now is the one that was taken."""
        return is_label(self.labels[index], self._as_stored(label))

    def _as_stored(self, label: Label) -> Label:
        return (
            unknown_as_nan(label)
            if self.settings.task in SIGMOID and isinstance(label, np.ndarray)
            else label
        )

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Of the labels and of a fixed set of samples; all of them would take a pass over the data."""
        chosen = spread(len(self), _PROBES)
        inputs = self.raw(chosen)
        check_inputs(inputs, chosen, self.name, self.split)
        digest = hashlib.sha256(f"{len(self)} {inputs.shape} {inputs.dtype.str}".encode())
        digest.update(self.labels.data)
        digest.update(inputs.data)
        return digest.hexdigest()

    def _read(self, index: int) -> tuple[NDArray[Any], Label]:
        where = f"{self.name}: {self.split}: sample {index}"
        try:
            item = read_item(self.dataset, index)
        except DataError:  # of a source of ours, which names the row
            raise
        except RAISED as error:  # reading a sample runs the user's code, which may raise anything
            raise DataError(f"{where}: cannot be read ({type(error).__name__}: {error})") from error
        try:
            value, label = split_item(item, self.settings.keys)
            return to_array(value, self.views, self.settings.axes), self.label(label, index)
        except DataError:
            raise
        except Exception as error:  # an input or a label may be an object of any kind
            words = (
                str(error)
                if isinstance(error, TypeError | ValueError)
                else f"{type(error).__name__}: {error}"
            )
            raise DataError(f"{where}: {words}") from error


def _class_names(dataset: Any, settings: DataSettings) -> tuple[str, ...]:
    """The names that a dataset has as `classes`, or as datasets of Hugging Face have them, of the feature that is the
    label.
    """
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if names is None and settings.keys is not None and isinstance(features, Mapping):
        names = getattr(features.get(settings.keys[1]), "names", None)
    if names is None:
        return ()
    if isinstance(names, Mapping):
        names = _by_number(names)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise DataError(f"{settings.name}: classes: expected a list of names, found {type(names).__name__}")
    return tuple(map(str, names))


def _by_number(names: Mapping[Any, Any]) -> Any:
    """The names of {number: name}, or of {name: number} as torchvision's class_to_idx, by number; else `names`."""
    by_number = (
        {value: key for key, value in names.items()} if any(isinstance(key, str) for key in names) else names
    )
    numbers = range(len(names))
    return [by_number[number] for number in numbers] if {*by_number} == {*numbers} else names


def _call(settings: DataSettings, split: Split) -> Any:
    """The dataset that the function returns. Raises DataError where there is no such function, or it fails."""
    if HIDDEN in settings.root:
        raise DataError(
            f"data.root: {settings.root}: its secret was left out when the run was saved; put it into a variable of "
            "the environment, and write data.root with that"
        )
    plugin = Plugin(settings.name, f"data.name {settings.name!r}", DataError)
    function = plugin.load()
    plugin.check_arguments(function, root=settings.root, split=split)
    part = settings.test or split if split == "test" else split
    try:
        dataset = function(root=settings.root, split=part)
        of_loader = hasattr(dataset, "dataset")  # which is told of its dataset
        if isinstance(dataset, Iterable) and not hasattr(dataset, "__getitem__") and not of_loader:
            raise TypeError(
                f"a {type(dataset).__name__} has an order of its own and no index, and a recipe needs both; "
                "decant.attach joins such a stream with cached logits in a loop of your own"
            )
        require_map_style(dataset, "a recipe reads samples by their index")
        len(dataset)
    except RAISED as error:  # the function may raise anything
        raise plugin.refusal(
            "called with root and split, it must return a dataset with a length and items "
            f"({type(error).__name__}: {error})"
        ) from error
    return dataset
