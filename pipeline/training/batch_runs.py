"""Small batches, several of which are made in one call.

A batch of a few KiB is made in 20 µs, but in 100 µs between two steps of a network, whose code has taken the place of
this in the processor's caches. Made in a row, all but the first cost 20 µs at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import in_turn, take_run

MOST_BYTES = 1 << 20
"""Of what is made in one call. Of 4 MiB views took a quarter more time: they are in no cache when the next operation
comes to them.
"""

Made = TypeVar("Made")
Keys = NDArray[np.int64]


class InRuns(Generic[Made]):
    """`in_runs(keys)` yields a batch for each of `keys`, in order, and makes several small ones in one call.

    The very first batch is made by `one`, and shows how many bytes a sample takes. All others, those of later calls
    too, are made by `several`, which is given as many keys as make about `most_bytes`. Samples are counted, not
    batches: the first batch of a resumed epoch may be its last, with one sample. Batches of which no two fit
    into `most_bytes`, or that hold something else than tensors, are made one by one: by `each`, where that is given.
    So are texts, as each batch of them is as long as its longest text. An error of a batch is raised when its turn
    comes: what was trained before it is not lost, as little as where each is made alone.

    >>> import torch
    >>> def several(runs):
    ...     print(len(runs))
    ...     return [(torch.tensor(keys),) for keys in runs]
    >>> keys = [np.arange(2) + place for place in range(3)]
    >>> in_runs = InRuns(lambda keys: (torch.tensor(keys),), several)
    >>> [batch[0].tolist() for batch in in_runs(keys)]
    2
    [[0, 1], [1, 2], [2, 3]]
    >>> [batch[0].tolist() for batch in in_runs(keys)]
    3
    [[0, 1], [1, 2], [2, 3]]
    """

    def __init__(
        self,
        one: Callable[[Keys], Made],
        several: Callable[[Sequence[Keys]], Sequence[Made]],
        each: Callable[[Iterable[Keys]], Iterable[Made]] | None = None,
        most_bytes: int | None = None,
    ) -> None:
        """most_bytes: 1 MiB where it is None."""
        self._one, self._several, self._each = one, several, each or partial(map, one)
        self._most_bytes = MOST_BYTES if most_bytes is None else most_bytes
        self._samples: int | None = None
        """Samples that are made in one call; None until the size of one is known."""

    def __call__(self, keys: Iterable[Keys]) -> Iterator[Made]:
        left = iter(keys)
        for first in left:
            if self._samples is None:
                made = self._one(first)
                self._samples = _how_many(made, len(first), self._most_bytes)
                yield made
            elif self._samples < 2 * max(1, len(first)):
                yield from self._each(chain([first], left))
            else:
                yield from in_turn(self._several, self._one, take_run(first, left, self._samples))


class OfEpochs(Protocol):
    """Keys of batches of an epoch that know those of the next ones; see `loading.EpochKeys`."""

    epoch: int
    first: int
    epochs: int | None

    def __len__(self) -> int: ...

    def onwards(self) -> Iterator[Keys]: ...


class AcrossEpochs(Generic[Made]):
    """`across_epochs(keys)` → what `make` makes of `keys`; where these say how many epochs there are, in one go over
    all epochs that are left, so that a run of batches may be of several. An epoch of a few KiB is then made between two
    steps as quickly as in a row: keys, logits and views of 22 batches take 5 times as long alone.

    Batches that were made of the next epoch are kept for it, and forgotten where another is asked for.
    """

    def __init__(self, make: Callable[[Iterable[Keys]], Iterator[Made]]) -> None:
        self._make = make
        self._left: Iterator[Made] = iter(())
        self._comes: tuple[int, int] | None = None
        """The epoch and the batch of which `_left` begins."""

    def __call__(self, keys: Iterable[Keys]) -> Iterator[Made]:
        if getattr(keys, "epochs", None) is None:
            yield from self._make(keys)
            return
        of_epochs = cast("OfEpochs", keys)
        epoch, first = of_epochs.epoch, of_epochs.first
        if self._comes != (epoch, first):
            self._left = self._make(of_epochs.onwards())
        self._comes = None  # until the epoch has ended
        yield from islice(self._left, len(of_epochs) - first)
        self._comes = (epoch + 1, 0)


def _how_many(batch: Any, size: int, most_bytes: int) -> int | None:
    """Samples like those of a batch of `size` that are made in one call; None where that cannot be told of none."""
    if not isinstance(batch, tuple | list) or not all(isinstance(part, Tensor) for part in batch):
        return 0
    return most_bytes * size // max(1, sum(part.nbytes for part in batch)) if size else None
