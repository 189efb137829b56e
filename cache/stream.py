"""attach: joins the samples of a stream with their cached logits, by the index that each sample carries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from decant.cache.alignment.checks import Alignment
from decant.cache.alignment.items import ItemKeys, kind_of_item, pick, recognise
from decant.cache.alignment.sample_keys import SampleKey, read_key, require_row, without_key
from decant.cache.ensemble import one_source
from decant.cache.errors import MismatchError
from decant.cache.inputs import CheckInputs
from decant.cache.io.checksum import crc32
from decant.cache.pickled import OfOneVersion
from decant.cache.reader import LogitCache
from decant.cache.shared_epoch import SharedEpoch
from decant.cache.source import LogitSource

FIELD = "teacher_logits"
_EVERY = 32
"""With check_inputs="sample" the first input and each 32nd after it is compared."""
_MOST_MARKS = 20_000_000


def attach(
    iterable: Iterable[Any],
    cache: LogitSource | Sequence[LogitCache],
    *,
    key: SampleKey,
    keys: ItemKeys | None = None,
    check_inputs: CheckInputs = "sample",
    compare_labels: bool = True,
    repeats: bool = False,
) -> SoftLabelStream:
    """Joins the samples of a stream with their cached logits: webdataset, streaming datasets, generators.

    key: where a sample has its index in the cache: the name of a field, a place in a tuple, or a function of the
    sample. It is an integer, or (index, view) where the cache has several views. keys: where input and label are, as
    `("jpg", "cls")`; not needed where the sample without its key is (input, label), or a dictionary with one field of
    tensors, arrays or images and one of a usual name for labels. A dictionary is yielded with
    "teacher_logits" added, a tuple with the logits appended; they are (C,) float32.

    Labels are compared for each sample; inputs as `check_inputs` says, "sample" being the first and each 32nd after it
    of a process. repeats: True where a sample may come several times in one pass, as resampled shards do; otherwise
    that is said once. (It is looked for in caches of up to 20 million rows.)

    With workers of a DataLoader, an `IterableDataset` divides its samples itself, as webdataset and streaming datasets
    do; of any other iterable each worker reads all and keeps its share.

    Raises TypeError for a map-style dataset, which `SoftLabelDataset` is for. While it is read: TypeError for a key
    that is missing or no index, MismatchError for one that the cache does not have, and for a label or an input that
    is not what the teacher saw.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits, labels = np.float32([[3, -1], [-2, 2], [0, 4]]), np.array([0, 1, 1])
    >>> cache = LogitCache.open(import_logits(Store(folder.name), logits, labels, teacher={}, data={"name": "toy"}))
    >>> shards = [{"image": torch.zeros(2), "label": 1, "index": 2}, {"image": torch.ones(2), "label": 0, "index": 0}]
    >>> stream = attach(shards, cache, key="index", keys=("image", "label"), check_inputs="off")
    >>> for sample in stream:
    ...     print(sample["index"], sample["label"], sample["teacher_logits"])
    2 1 tensor([0., 4.])
    0 0 tensor([ 3., -1.])
    >>> folder.cleanup()
    """
    return SoftLabelStream(
        iterable,
        cache,
        key=key,
        keys=keys,
        check_inputs=check_inputs,
        compare_labels=compare_labels,
        repeats=repeats,
    )


class SoftLabelStream(OfOneVersion, IterableDataset[Any]):
    """What `attach` returns: the samples of a stream with their teacher logits, in its order."""

    def __init__(
        self,
        iterable: Iterable[Any],
        cache: LogitSource | Sequence[LogitCache],
        *,
        key: SampleKey,
        keys: ItemKeys | None = None,
        check_inputs: CheckInputs = "sample",
        compare_labels: bool = True,
        repeats: bool = False,
    ) -> None:
        source = one_source(cache)
        _require_iterable(iterable)
        self.iterable, self.cache, self.key, self.item_keys = iterable, source, key, keys
        self._epoch = SharedEpoch()
        rows = source.num_samples * source.num_views
        self._marks = torch.zeros(0 if repeats or rows > _MOST_MARKS else rows, dtype=torch.int32)
        self._marks.share_memory_()  # type: ignore[no-untyped-call]
        self._passes = 0
        self._alignment = Alignment(
            source, check_inputs=check_inputs, compare_labels=compare_labels, warn_once=self._epoch.warn_once
        )
        self._alignment.require_checksums()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if not self._marks.is_shared():  # type: ignore[no-untyped-call]
            self._marks.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """From now on a key without a view reads view `epoch mod V`, in this process and in every live worker. Calls
        `set_epoch` of the iterable too, where it has one. Raises ValueError for an epoch below 0, CorruptError where
        the cache has changed since it was read.
        """
        self.check_unchanged()
        self._epoch.set(epoch)
        tell = getattr(self.iterable, "set_epoch", None)
        if tell is not None:
            tell(self._epoch.number)

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where a cache is no longer what was read from it, as `SoftLabelDataset` does."""
        for member in self.cache.members:
            member.check_unchanged(checksums=checksums)

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]  # a TypeError where it has none, as of any stream

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        samples = iter(self.iterable)
        if samples is self.iterable and self._passes:
            raise RuntimeError(
                f"{type(samples).__name__}: an iterator gives its samples once, and they were read: attach to an "
                "object whose __iter__ begins again"
            )
        # The same in all workers of a loader.
        loader = os.getpid() if worker is None else worker.seed - worker.id
        mark = crc32(f"{loader} {self._passes}".encode()) >> 1 | 1
        self._passes += 1
        if worker is not None and not isinstance(self.iterable, IterableDataset):
            samples = islice(samples, worker.id, None, worker.num_workers)
        marks = self._marks.numpy()
        for number, sample in enumerate(samples):
            yield self._joined(sample, number, marks, mark)

    def _joined(self, sample: Any, number: int, marks: NDArray[np.int32], mark: int) -> Any:
        """The sample with its logits, once its key, label and input are checked."""
        index, view = self._row(sample)
        rows, views = np.array([index], np.intp), np.array([view], np.intp)
        logits = torch.from_numpy(self.cache.logits(rows, view)).float()[0]
        self._check(sample, number, rows, views)
        if len(marks):
            row = view * self.cache.num_samples + index
            if marks[row] == mark:
                self._say_repeat(index)
            marks[row] = mark
        return _with_logits(sample, logits)

    def _row(self, sample: Any) -> tuple[int, int]:
        """(index, view) of a sample in the cache."""
        index, view = read_key(sample, self.key)
        if view is None:
            num_views = self.cache.num_views
            if num_views > 1 and not self._epoch.calls:
                raise MismatchError(
                    f"{self.cache.path}: key {index:,}: has no view, and the cache has {num_views}: give keys "
                    f"(index, view), or call set_epoch(epoch) before each epoch, where the samples are of view epoch "
                    f"mod {num_views}"
                )
            view = self._epoch.number % num_views
        require_row(self.cache, index, view)
        return index, view

    def _check(self, sample: Any, number: int, rows: NDArray[np.intp], views: NDArray[np.intp]) -> None:
        inputs = self._alignment.check_inputs
        due = inputs == "all" or (inputs == "sample" and number % _EVERY == 0)
        if not due and not self._alignment.compare_labels:
            return
        rest = without_key(sample, self.key) if self.item_keys is None else sample
        keys = self.item_keys or recognise(rest)
        if keys is None:
            raise TypeError(
                f"a sample without its key must be (input, label), found {kind_of_item(rest)}; give attach "
                'keys=(…, …), where the input and the label are, or check_inputs="off" and compare_labels=False'
            )
        value, label = pick(rest, keys)
        if self._alignment.compare_labels:
            self._alignment.check_labels(rows, [label])
        if due:
            self._alignment.check_input(rows, views, [value])

    def _say_repeat(self, index: int) -> None:
        self._epoch.warn_once(
            "repeats",
            f"{self.cache.path}: sample {index:,} came twice in one pass: with several workers the iterable may not "
            "divide its samples among them (torch.utils.data.get_worker_info), or the keys are not unique; "
            "repeats=True silences this",
        )


def _with_logits(sample: Any, logits: torch.Tensor) -> Any:
    if isinstance(sample, Mapping):
        if FIELD in sample:
            raise TypeError(f"a sample has a field {FIELD!r} already: rename it, or do not attach twice")
        return {**sample, FIELD: logits}
    return (*sample, logits) if isinstance(sample, (tuple, list)) else (sample, logits)


def _require_iterable(iterable: Any) -> None:
    """Raises TypeError for what has no order of its own, or is no iterable at all."""
    map_style = isinstance(iterable, Dataset) and not isinstance(iterable, IterableDataset)
    if map_style and not hasattr(iterable, "__iter__"):
        raise TypeError(
            f"expected an iterable of samples, found {type(iterable).__name__}, a map-style dataset: "
            "SoftLabelDataset(dataset, cache) reads it by index, shuffled or not"
        )
    if not isinstance(iterable, Iterable):
        raise TypeError(f"expected an iterable of samples, found {type(iterable).__name__}")
