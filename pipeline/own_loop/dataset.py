"""`Views`: any map-style dataset through any transform, so that view v of sample i has the same pixels always."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from decant.cache import (
    DrawnViews,
    ItemKeys,
    Key,
    Keys,
    OfOneVersion,
    SharedEpoch,
    holder_of_views,
    input_crc32,
    is_pair,
    name_sample,
    pick,
    read_item,
    recognise,
    require_map_style,
    split_keys,
)
from decant.pipeline.own_loop.description import codes, describe
from decant.pipeline.own_loop.seeding import Seeding
from decant.pipeline.own_loop.stages import Drawn, Stages
from decant.pipeline.own_loop.transforms import Transform, steps_of

_TEACHER, _STUDENT = 1 << 20, 1 << 21
"""Numbers of the first step of the parts that only teacher or student sees; steps of all begin at 0."""


class Views(OfOneVersion, Dataset[Any]):
    """A dataset through `count` views: `views[i, v]` is view v of sample i, with the same bytes whenever, wherever and
    in whatever order it is read. `views[i]` is view `epoch mod count`.

    dataset: map-style, with items (input, label), (input,) where there are no labels, or dictionaries. transform: of
    torchvision (v1, v2), timm, albumentations, transformers (an image processor), or any callable of one input; a list
    of them; operations of `decant.views`; for dictionaries and longer tuples also {field: transform}. A callable alone
    gets the input of a tuple, and a dictionary as a whole.

    teacher, student: what only one of the two does after `transform`, as resizing and normalising for its own network;
    nothing in them may be random. Items are then those of the student.

    Before sample i is read and transformed for view v, random generators are seeded with a hash of (seed, i, v): those
    of torch (CPU), NumPy and Python, and those that the transform or the dataset keep as attributes or name in their
    functions. Afterwards the global ones go on as if nothing had been drawn. Attributes of the dataset are attributes
    of its views too; its methods are not, as they return samples without views.

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

        Raises TypeError for what is no map-style dataset, for one that has several views already, and for what is no
        transform,
        ValueError for a count below 1 or a seed outside of 0 to 2⁶³ − 1, and DataError for mixing where the number of
        classes is not known.
        """
        require_map_style(dataset, "a view belongs to a sample by its index")
        if (isinstance(dataset, Views) and dataset.count > 1) or holder_of_views(dataset):
            raise TypeError(
                "dataset: has Views in it, of which view 0 alone would be read: give one Views all transforms, as "
                "Views(dataset, [first, second])"
            )
        self.count: int = operator.index(count)
        self.seed: int = operator.index(seed)
        if self.count < 1:
            raise ValueError(f"count: expected 1 or more, found {count}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: expected 0 to 2⁶³ − 1, found {seed}")
        self.dataset, self._transform, self.teacher, self.student = dataset, transform, teacher, student
        parts = ((transform, 0), (teacher, _TEACHER), (student, _STUDENT))
        self._shared, self._teacher, self._student = (
            Stages(dataset, steps_of(part), self.seed, first, self.item_keys_of) for part, first in parts
        )
        self._seeding = Seeding(transform, dataset, teacher, student)
        self.given_keys, self._keys = keys, keys
        self.identity: dict[str, Any] = {"seed": self.seed, **_describe(dataset, transform, teacher)}
        self.is_plain = False
        self._drawn = DrawnViews(len(dataset))
        self._epoch = SharedEpoch()

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
            return super().__getattr__(name)  # type: ignore[misc]
        value = getattr(self.dataset, name)
        if callable(value) and not isinstance(value, torch.Tensor):
            raise AttributeError(
                f"{name}: a method of {type(self.dataset).__name__}, which knows nothing of views; use "
                f"views.dataset.{name}"
            )
        return value

    def set_epoch(self, epoch: int) -> None:
        """From now on `views[i]` is view `epoch mod count`, in this process and in every live worker.

        Raises ValueError for an epoch below 0.
        """
        self._epoch.set(epoch)

    def __getitem__(self, key: Key) -> Any:
        """The item of (index, view), or of an index in the view of the epoch."""
        _, items = self._read(self._student, *split_keys([key], len(self), self._epoch.number % self.count))
        return items[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """An item for each key, for a DataLoader to collate."""
        epoch, calls = self._epoch.number, self._epoch.calls
        if self.count > 1 and not isinstance(keys[0], tuple):
            self._watch_passes(len(keys), epoch)
        return self._read(self._student, *self._drawn.split(keys, self.count, epoch, calls))[1]

    def _watch_passes(self, count: int, epoch: int) -> None:
        """Says once that a third pass reads the view that two have read."""
        if self._epoch.is_third_pass(count, len(self)):
            self._epoch.warn_once(
                "views",
                f"views: a third pass reads view {epoch % self.count} only, of {self.count}: call set_epoch(epoch) "
                "before each epoch, or use keys (index, view)",
            )

    def read_views(self, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        """Items of (index, view) keys, and of each the input and the label as teacher and student share them, which
        checksums are of.
        """
        return self._with_shared(self._student, keys)

    def read_for_teacher(self, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        """As `read_views`, with the items that the teacher sees."""
        return self._with_shared(self._teacher, keys)

    def _with_shared(self, part: Stages, keys: Keys) -> tuple[list[Any], list[Any], list[Any]]:
        shared, items = self._read(part, *split_keys(keys, len(self)))
        if not shared:
            return [], [], []
        where = self.item_keys_of(shared[0])
        as_it_is = where == (0, 1) and all(map(is_pair, shared))
        pairs = shared if as_it_is else [self._pair(*each, where) for each in zip(shared, keys, strict=True)]
        inputs, labels = zip(*pairs, strict=True)
        return items, list(inputs), list(labels)

    def _pair(self, item: Any, key: Any, where: ItemKeys) -> tuple[Any, Any]:
        """(input, label) of an item. Raises TypeError, with a note of the sample, where it does not have them."""
        try:
            return pick(item, where)
        except TypeError as error:
            name_sample(error, self.dataset, key[0] if np.ndim(key) else key)
            raise

    def _read(
        self, part: Stages, indices: NDArray[np.intp], views: NDArray[np.intp]
    ) -> tuple[list[Any], list[Any]]:
        """Items as teacher and student share them, and as one of them sees them."""
        if views.max(initial=0) >= self.count:
            raise IndexError(f"view {views.max()}: there are {self.count}")
        if self.is_plain:
            items = [read_item(self.dataset, index) for index in indices.tolist()]
            return items, items
        drawn = Drawn(indices, views, self._seeding)

        def work() -> tuple[list[Any], list[Any]]:
            shared = self._shared.read(drawn)
            return shared, part.apply(shared, drawn) if len(part) else shared

        return self._seeding.run(len(indices), work)

    def is_random_for(self, who: Literal["teacher", "student"], keys: Keys) -> bool:
        """Whether what only the teacher or the student does draws random numbers, as it does for these keys."""
        first, part = (_TEACHER, self.teacher) if who == "teacher" else (_STUDENT, self.student)
        read = []
        for seed in (self.seed, self.seed ^ 1):
            stages = Stages(self.dataset, steps_of(part), seed, first, self.item_keys_of)
            _, items = self._read(stages, *split_keys(keys, len(self)))
            read.append([input_crc32(pick(item, recognise(item) or self.item_keys)[0]) for item in items])
        return read[0] != read[1]

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
            return self.item_keys_of(self._read(self._student, first, first)[0][0])
        return self._keys

    @property
    def mixes_labels(self) -> bool:
        """Whether labels are mixed ones, (C,) float32, and not the samples' own."""
        return self._shared.mixes_labels


def plain_views(dataset: Any) -> Views:
    """A dataset as it is, as one view: nothing is seeded, so that a random one is found out."""
    views = Views(dataset, None, count=1)
    views.is_plain = True
    return views


def _describe(dataset: Any, transform: Any, teacher: Any) -> dict[str, Any]:
    """What tells these transforms from others: in words, and by the digests of the user's code in them."""
    inner = getattr(dataset, "transform", None) or getattr(dataset, "transforms", None)
    parts = {"transform": transform, "teacher": teacher, "dataset": inner}
    words = {name: describe(part) for name, part in parts.items() if part is not None}
    code = {"code": codes([transform, inner]), "teacher_code": codes(teacher)}
    return {**words, **{name: found for name, found in code.items() if found}}
