"""`Views`: any map-style dataset through any transform, so that view v of sample i has the same pixels always."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from decant.cache import DrawnViews, ItemKeys, Key, Keys, pick, recognise, split_keys
from decant.pipeline.errors import DataError
from decant.pipeline.own_loop import transforms
from decant.pipeline.own_loop.description import codes, describe
from decant.pipeline.own_loop.operations import ViewOperation
from decant.pipeline.own_loop.own_generators import own_generators, seed_own
from decant.pipeline.own_loop.transforms import Transform
from decant.pipeline.views import mixing
from decant.pipeline.views.generators import generators_kept, seed_generators
from decant.pipeline.views.hashing import choices

_TEACHER, _STUDENT = 1 << 20, 1 << 21
"""Numbers of the first step of the parts that only teacher or student sees; steps of all begin at 0."""


class Views(Dataset[Any]):
    """A dataset through `count` views: `views[i, v]` is view v of sample i, with the same bytes whenever, wherever and
    in whatever order it is read. `views[i]` is view `epoch mod count`.

    dataset: map-style, with items (input, label) or dictionaries. transform: of torchvision (v1, v2), timm,
    albumentations, transformers (an image processor), or any callable of one input; a list of them; operations of
    `decant.views`; for dictionaries also {field: transform}. A callable alone gets the whole dictionary.

    teacher, student: what only one of the two does after `transform`, as resizing and normalising for its own network;
    nothing in them may be random. Items are then those of the student.

    Before sample i is read and transformed for view v, the generators of torch (CPU), NumPy and Python, and those that
    the transform or the dataset keep as attributes, are seeded with a hash of (seed, i, v); afterwards the global ones
    go on as if nothing had been drawn. Attributes of the dataset are attributes of its views too; its methods are not,
    as they return samples without views.

    In a batch of a DataLoader whose sampler draws an index several times in an epoch, each further draw takes the next
    view. The count is of the process that reads, so that it depends on the number of workers; input and logits belong
    together whatever it is.

    >>> data = torch.utils.data.TensorDataset(torch.zeros(3, 4), torch.arange(3))
    >>> views = Views(data, lambda x: x + torch.rand(4), count=2, seed=0)
    >>> torch.equal(views[1, 0][0], views[1, 0][0]), torch.equal(views[1, 0][0], views[1, 1][0])
    (True, False)
    >>> views.set_epoch(3)
    >>> torch.equal(views[1][0], views[1, 1][0])
    True
    """

    def __init__(
        self,
        dataset: Any,
        transform: Transform = None,
        *,
        count: int = 4,
        seed: int = 0,
        teacher: Transform = None,
        student: Transform = None,
        keys: ItemKeys | None = None,
    ) -> None:
        """keys: where input and label of an item are after `transform`, as `("image", "label")`, where that cannot be
        recognised.

        Raises TypeError for what is no map-style dataset or no transform, ValueError for a count below 1 or a seed
        outside of 0 to 2⁶³ − 1, and DataError for mixing where the number of classes is not known.
        """
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(
                f"expected a map-style dataset, with a length and an index, found {type(dataset).__name__}: a view "
                "belongs to a sample by its index"
            )
        self.count, self.seed = operator.index(count), operator.index(seed)
        if self.count < 1:
            raise ValueError(f"count: expected 1 or more, found {count}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2⁶³ − 1, found {seed}")
        self.dataset, self._transform, self.teacher, self.student = dataset, transform, teacher, student
        self._steps = transforms.steps_of(transform)
        self._after = {
            _TEACHER: transforms.steps_of(teacher),
            _STUDENT: transforms.steps_of(student),
        }
        self.given_keys, self._keys = keys, keys
        self.description = _describe(dataset, transform, teacher, student)
        self._generators: list[Any] | None = None
        self.is_plain = False
        self._drawn = DrawnViews(len(dataset))
        self._epoch = torch.zeros(2, dtype=torch.int64)  # epoch, number of calls of set_epoch
        self._epoch.share_memory_()

    @property
    def transform(self) -> Transform:
        """What teacher and student share. Raises TypeError where it is set afterwards."""
        return self._transform

    @transform.setter
    def transform(self, _: object) -> None:
        raise TypeError(
            "transform: cannot be set afterwards, as views that were cached would have other pixels: make other "
            "views by decant.Views(dataset, transform)"
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "dataset" not in self.__dict__:
            raise AttributeError(name)
        value = getattr(self.dataset, name)
        if callable(value) and not isinstance(value, torch.Tensor):
            raise AttributeError(
                f"{name}: a method of {type(self.dataset).__name__}, which knows nothing of views; use "
                f"views.dataset.{name}"
            )
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_generators": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """From now on `views[i]` is view `epoch mod count`, in this process and in every live worker.

        Raises ValueError for an epoch below 0.
        """
        number = operator.index(epoch)
        if number < 0:
            raise ValueError(f"epoch: counts from 0, found {epoch}")
        self._epoch[0] = number
        self._epoch[1] += 1

    def __getitem__(self, key: Key) -> Any:
        """The item of (index, view), or of an index in the view of the epoch."""
        indices, views = split_keys([key], len(self), int(self._epoch[0]) % self.count)
        return self._of_student(self._shared(indices, views), indices, views)[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """An item for each key, for a DataLoader to collate."""
        indices, views = self._drawn.split(keys, self.count, *self._epoch.tolist())
        return self._of_student(self._shared(indices, views), indices, views)

    def read_views(self, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        """Items of (index, view) keys, and of each the input and the label as teacher and student share them, which
        checksums are of.
        """
        return self._read_for(_STUDENT, keys)

    def read_for_teacher(self, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        """As `read_views`, with the items that the teacher sees."""
        return self._read_for(_TEACHER, keys)

    def _read_for(self, part: int, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        indices, views = split_keys(keys, len(self))
        shared = self._shared(indices, views)
        pairs = [pick(item, self.item_keys_of(item)) for item in shared]
        inputs, labels = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return self._part(part, shared, indices, views), inputs, labels

    def item_keys_of(self, item: Any) -> ItemKeys:
        """Where input and label of an item are."""
        if self._keys is None:
            self._keys = recognise(item)
        if self._keys is None:
            pick(item, None)  # raises, with a suggestion
        assert self._keys is not None
        return self._keys

    @property
    def item_keys(self) -> ItemKeys:
        """Where input and label of an item are, as given or as recognised in the first one."""
        if self._keys is None:
            first = np.zeros(1, np.intp)
            return self.item_keys_of(self._shared(first, first)[0])
        return self._keys

    @property
    def mixes_labels(self) -> bool:
        """Whether labels are mixed ones, (C,) float32, and not the samples' own."""
        return any(_mixes(step) for steps in self._steps.values() for step in steps)

    def _of_student(self, shared: list[Any], indices: NDArray[np.intp], views: NDArray[np.intp]) -> list[Any]:
        return self._part(_STUDENT, shared, indices, views)

    def _part(
        self, first: int, shared: list[Any], indices: NDArray[np.intp], views: NDArray[np.intp]
    ) -> list[Any]:
        """What teacher or student alone does, after the steps of both."""
        steps = self._after[first]
        if not steps:
            return shared
        with generators_kept():
            items = list(shared)
            for number in range(max(map(len, steps.values()))):
                self._apply(steps, number, first + number, items, indices, views)
        return items

    def _shared(self, indices: NDArray[np.intp], views: NDArray[np.intp]) -> list[Any]:
        """Items after all steps of `transform`."""
        if views.max(initial=0) >= self.count:
            raise IndexError(f"view {views.max()}: there are {self.count}")
        with generators_kept():
            return self._until(max(map(len, self._steps.values()), default=0), indices, views)

    def _until(self, count: int, indices: NDArray[np.intp], views: NDArray[np.intp]) -> list[Any]:
        """Items after the first `count` steps."""
        items = self._read(indices, views, with_first_step=count > 0)
        for number in range(count):
            self._apply(self._steps, number, number, items, indices, views, read=number == 0)
        return items

    def _read(self, indices: NDArray[np.intp], views: NDArray[np.intp], with_first_step: bool) -> list[Any]:
        """Items of the dataset, which may draw too, and what is called for each of them first."""
        seeds = choices(self.seed, indices, views, 0).tolist()
        first = [
            (field, _call(steps[0]))
            for field, steps in self._steps.items()
            if with_first_step and steps and not isinstance(steps[0], ViewOperation)
        ]
        items = []
        for index, bits in zip(indices.tolist(), seeds, strict=True):
            self._seed(bits)
            item = self.dataset[index]
            for place, (field, function, name) in enumerate((field, *each) for field, each in first):
                if place:
                    self._seed(bits)  # fields draw the same numbers: an image and its mask are cropped alike
                value = transforms.call(function, transforms.value_of(item, field), name)
                item = transforms.with_value(item, field, value)
            items.append(item)
        return items

    def _apply(
        self,
        steps: Mapping[transforms.Field, Sequence[Any]],
        number: int,
        draws: int,
        items: list[Any],
        indices: NDArray[np.intp],
        views: NDArray[np.intp],
        read: bool = False,
    ) -> None:
        """Applies step `number` to items in place; its random numbers are those of operation `draws`. Callables are
        left out where they were called when the items were `read`.
        """
        chosen = {field: each[number] for field, each in steps.items() if number < len(each)}
        for field, step in chosen.items():
            if isinstance(step, ViewOperation):
                self._operate(step, number, draws, field, items, indices, views)
            elif not read:
                function, name = _call(step)
                for place, bits in enumerate(choices(self.seed, indices, views, draws).tolist()):
                    self._seed(bits)
                    value = transforms.call(function, transforms.value_of(items[place], field), name)
                    items[place] = transforms.with_value(items[place], field, value)

    def _operate(
        self,
        step: ViewOperation,
        number: int,
        draws: int,
        field: transforms.Field,
        items: list[Any],
        indices: NDArray[np.intp],
        views: NDArray[np.intp],
    ) -> None:
        """Applies an operation of `decant.views` to items in place, all at once."""
        bits = choices(self.seed, indices, views, draws)
        values = [transforms.value_of(item, field) for item in items]
        if not step.mixes:
            results = step.apply(values, bits)
        else:
            partners = self._until(number, mixing.partner(bits, len(self)), views)
            theirs = [transforms.value_of(item, field) for item in partners]
            results, share = step.mix(values, theirs, bits)
            self._mix_labels(items, partners, share)
        items[:] = [
            transforms.with_value(item, field, value) for item, value in zip(items, results, strict=True)
        ]

    def _mix_labels(self, items: list[Any], partners: list[Any], share: NDArray[np.float64]) -> None:
        """Puts the weighted mean of both labels, (C,) float32, in the place of each item's own."""
        for place, (item, partner) in enumerate(zip(items, partners, strict=True)):
            own, other = self._shares(item), self._shares(partner)
            part = np.float32(share[place])
            mixed = torch.from_numpy(part * own + np.float32(1 - share[place]) * other)
            label = self.item_keys_of(item)[1]
            if isinstance(item, Mapping):
                items[place] = {**item, str(label): mixed}
            else:
                items[place] = tuple(mixed if at == label else value for at, value in enumerate(item))

    def _shares(self, item: Any) -> NDArray[np.float32]:
        """The label of an item as shares of the classes (C,)."""
        label = np.asarray(pick(item, self.item_keys_of(item))[1])
        if label.ndim == 1:
            return label.astype(np.float32)
        classes = getattr(self.dataset, "classes", None)
        if classes is None or label.dtype.kind not in "iu":
            raise DataError(
                "decant.views: mixup and cutmix mix class labels, and need integers and the number of classes: give "
                f"the dataset an attribute `classes`, or labels as one-hot rows (found {label.dtype} {label.shape})"
            )
        return (label == np.arange(len(classes))).astype(np.float32)

    def _seed(self, bits: list[int]) -> None:
        if self.is_plain:
            return
        seed_generators(bits)
        if self._generators is None:
            self._generators = own_generators(self.transform, self.dataset, self.teacher, self.student)
        if self._generators:
            seed_own(self._generators, bits)


def plain_views(dataset: Any) -> Views:
    """A dataset as it is, as one view: nothing is seeded, so that a random one is found out."""
    views = Views(dataset, None, count=1)
    views.is_plain = True
    return views


def _describe(dataset: Any, transform: Any, teacher: Any, student: Any) -> dict[str, Any]:
    """What tells these transforms from others: in words, and by the digests of the user's code in them."""
    parts = {"transform": transform, "teacher": teacher}
    words = {name: describe(part) for name, part in parts.items() if part is not None}
    inner = getattr(dataset, "transform", None) or getattr(dataset, "transforms", None)
    if inner is not None:
        words["dataset"] = describe(inner)
    code = codes([transform, teacher, inner])
    return {**words, **({"code": code} if code else {})}


def _mixes(step: object) -> bool:
    return isinstance(step, ViewOperation) and step.mixes


def _call(step: Any) -> tuple[transforms.OneTransform, str]:
    return transforms.caller(step), transforms.name_of(step)
