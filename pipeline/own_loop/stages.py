"""Reads samples and applies the steps of a transform to them, each with the random numbers of (seed, index, view)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache import ItemKeys, name_sample, pick, read_item
from decant.pipeline.errors import DataError
from decant.pipeline.own_loop import transforms
from decant.pipeline.own_loop.operations import ViewOperation
from decant.pipeline.own_loop.seeding import Seeding
from decant.pipeline.own_loop.transforms import Field
from decant.pipeline.views import mixing
from decant.pipeline.views.hashing import choices


class Drawn(NamedTuple):
    """Which views are made, and how the generators are seeded for one."""

    indices: NDArray[np.intp]
    views: NDArray[np.intp]
    seeding: Seeding


class Stages:
    """The steps of one transform by field, numbered from `first`: step k draws the random numbers of operation k."""

    def __init__(
        self,
        dataset: Any,
        steps: Mapping[Field, Sequence[Any]],
        hash_seed: int,
        first: int,
        keys_of: Callable[[Any], ItemKeys],
    ) -> None:
        self._dataset, self._hash_seed, self._first, self._keys_of = dataset, hash_seed, first, keys_of
        self._input: Field = None
        self._is_known = False  # which field of a tuple is the input; the first sample shows it
        count = max(map(len, steps.values()), default=0)
        self._steps: list[list[tuple[Field, Any, str]]] = [
            [
                (field, _ready(each[number]), transforms.name_of(each[number]))
                for field, each in steps.items()
                if number < len(each)
            ]
            for number in range(count)
        ]

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def mixes_labels(self) -> bool:
        """Whether a step mixes samples."""
        return any(
            isinstance(step, ViewOperation) and step.mixes for each in self._steps for _, step, _ in each
        )

    def read(self, drawn: Drawn, count: int | None = None) -> list[Any]:
        """Items of the dataset after the first `count` steps, by default all.

        The first step, where it is a callable, goes on with the random numbers of reading, which are its own unless
        the dataset draws too.
        """
        count = len(self) if count is None else count
        together = [each for each in self._steps[0] if not _is_operation(each[1])] if count else []
        items = []
        seeding = drawn.seeding
        for index, seed in zip(drawn.indices.tolist(), seeding.seeds(self._bits(drawn, 0)), strict=True):
            seeding.seed(seed)
            item = read_item(self._dataset, index)
            for place, (field, function, name) in enumerate(together):
                if place:
                    seeding.seed(seed)
                try:
                    item = transforms.applied(function, item, self._field(field, item), name)
                except DataError as error:
                    name_sample(error, self._dataset, index)
                    raise
            items.append(item)
        for number in range(count):
            self._apply(number, items, drawn, operations_only=number == 0)
        return items

    def apply(self, items: list[Any], drawn: Drawn) -> list[Any]:
        """Items after all steps, which may change what they are given in place: others see these items too."""
        items = list(items)
        for field in {field for each in self._steps for field, _, _ in each}:
            items[:] = [transforms.with_copy(item, self._field(field, item)) for item in items]
        for number in range(len(self)):
            self._apply(number, items, drawn)
        return items

    def _apply(self, number: int, items: list[Any], drawn: Drawn, operations_only: bool = False) -> None:
        """Applies step `number` to items, in place. Fields draw the same random numbers, so that an image and its mask
        are cropped alike.
        """
        for field, step, name in self._steps[number]:
            if _is_operation(step):
                self._operate(step, number, field, items, drawn)
            elif not operations_only:
                for place, seed in enumerate(drawn.seeding.seeds(self._bits(drawn, number))):
                    drawn.seeding.seed(seed)
                    items[place] = transforms.applied(
                        step, items[place], self._field(field, items[place]), name
                    )

    def _operate(
        self, step: ViewOperation, number: int, field: Field, items: list[Any], drawn: Drawn
    ) -> None:
        """Applies an operation of `decant.views` to all items at once, in place."""
        field = self._field(field, items[0]) if items else field
        bits = self._bits(drawn, number)
        values = [transforms.value_of(item, field) for item in items]
        if not step.mixes:
            results = step.apply(values, bits)
        else:
            chosen = mixing.partner(bits, len(self._dataset)).astype(np.intp)
            partners = self.read(drawn._replace(indices=chosen), number)
            results, share = step.mix(values, [transforms.value_of(item, field) for item in partners], bits)
            self._mix_labels(items, partners, share)
        items[:] = [
            transforms.with_value(item, field, value) for item, value in zip(items, results, strict=True)
        ]

    def _mix_labels(self, items: list[Any], partners: list[Any], share: NDArray[np.float64]) -> None:
        """Puts the weighted mean of both labels, (C,) float32, in the place of each item's own."""
        for place, (item, partner) in enumerate(zip(items, partners, strict=True)):
            own, other = self._shares(item), self._shares(partner)
            mixed = torch.from_numpy(np.float32(share[place]) * own + np.float32(1 - share[place]) * other)
            label = self._keys_of(item)[1]
            if isinstance(item, Mapping):
                items[place] = {**item, str(label): mixed}
            else:
                items[place] = tuple(mixed if at == label else value for at, value in enumerate(item))

    def _shares(self, item: Any) -> NDArray[np.float32]:
        """The label of an item as shares of the classes (C,)."""
        label = np.asarray(pick(item, self._keys_of(item))[1])
        if label.ndim == 1:
            return label.astype(np.float32)
        classes = getattr(self._dataset, "classes", None)
        if classes is None or label.dtype.kind not in "iu":
            raise DataError(
                "decant.views: mixup and cutmix mix class labels, and need integers and the number of classes: give "
                f"the dataset an attribute `classes`, or labels as one-hot rows (found {label.dtype} {label.shape})"
            )
        return (label == np.arange(len(classes))).astype(np.float32)

    def _field(self, field: Field, item: Any) -> Field:
        """The field that a step takes: by default the input of a tuple, where that is not the first value its place."""
        if field is None and not self._is_known and isinstance(item, tuple | list):
            place = self._keys_of(item)[0]
            self._input, self._is_known = place if place != 0 and isinstance(place, str | int) else None, True
        return self._input if field is None and isinstance(item, tuple | list) else field

    def _bits(self, drawn: Drawn, number: int) -> NDArray[np.uint64]:
        return choices(self._hash_seed, drawn.indices, drawn.views, self._first + number)


def _ready(step: Any) -> Any:
    return step if _is_operation(step) else transforms.caller(step)


def _is_operation(step: object) -> bool:
    return isinstance(step, ViewOperation)
