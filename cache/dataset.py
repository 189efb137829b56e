"""SoftLabelDataset: joins the samples of a dataset with their cached logits, and refuses a cache of something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, TensorDataset

from decant.cache.alignment.checks import Alignment
from decant.cache.alignment.class_names import doubt_class_names
from decant.cache.alignment.drawn_views import DrawnViews
from decant.cache.alignment.expected_batches import ExpectedBatches
from decant.cache.alignment.items import ItemKeys, is_pair, pick, read_item, recognise
from decant.cache.alignment.keys import Key, Keys, split_keys
from decant.cache.alignment.map_style import require_map_style
from decant.cache.alignment.same_views import (
    ReadsViews,
    require_same_views,
    takes_index,
    takes_no_view,
    views_within,
)
from decant.cache.alignment.subsets import cached_data, cached_indices, holder_of_views, require_cached_length
from decant.cache.ensemble import one_source
from decant.cache.errors import MismatchError
from decant.cache.inputs import CheckInputs
from decant.cache.made_together import in_turn, split_batch, take_run
from decant.cache.pickled import OfOneVersion
from decant.cache.reader import LogitCache
from decant.cache.shared_epoch import SharedEpoch
from decant.cache.source import LogitSource

_BYTES_AHEAD, _MOST_AHEAD = 1 << 20, 64
"""Of the logits that are read before the batches are made that they belong to, and of these batches."""
_INTP = np.dtype(np.intp)


class MapDataset(Protocol):
    """What a dataset needs: a length, and (input, label) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> tuple[Any, Any]: ...


LabelsFirst = Callable[[Keys], tuple[NDArray[Any], Callable[[int, int], Any]] | None]
"""The method `labels_first` of a dataset that has `batch`: keys (N, 2) → the labels (N, …) that `batch` gives for them,
and a function: (first, end) → the inputs of keys[first:end]; None where labels are not known without inputs.
"""


class SoftLabelDataset(OfOneVersion, Dataset[Any]):
    """A map-style dataset of (input, label, teacher_logits), or of dictionaries with a field "teacher_logits".

    dataset: `dataset[i]` is (input, label) of sample i of the cache; where the cache has several views, `dataset[i,
    v]` is that of view v, as of `decant.Views`. A `torch.utils.data.Subset` of the cached data is followed through
    its indices; one that has a cache of its own, as long as itself, is read as it is. A dataset with a method
    `batch(keys) → (inputs, labels)` is read a whole batch at a time by `batch`, the faster way. Of a dictionary,
    the label is the field of a usual name, as "label", and the input what else is a tensor, an array or an image;
    it gets a field "teacher_logits" (C,) float32. A named tuple is read by its names too. Of samples without a label,
    (input,) or (input, None), it is −1.

    A label that differs from the cached one, or an input that is not what the teacher saw, raises MismatchError. Labels
    are compared as class ids: integers, whole floats, (B, 1), one-hot rows or names of the classes. Inputs are compared
    by value: the same pixels as (H, W, C) or (C, H, W), as uint8 or as `ToTensor` makes them, are the same input.
    What cannot be compared is said once, by a `CacheWarning`.

    >>> import tempfile
    >>> from torch.utils.data import TensorDataset
    >>> from decant.cache import LogitCacheWriter, Manifest
    >>> folder = tempfile.TemporaryDirectory()
    >>> images, labels = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 1])
    >>> manifest = Manifest.build(num_samples=3, num_outputs=2)
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", manifest) as writer:
    ...     writer.write(range(3), [[3.0, 0.0], [0.0, 4.0], [1.0, 2.0]], labels=labels, inputs=images)
    ...     path = writer.publish()
    >>> train = SoftLabelDataset(TensorDataset(images, labels), LogitCache.open(path))
    >>> image, label, teacher_logits = train[2]
    >>> image.shape, int(label), teacher_logits
    (torch.Size([1, 4, 4]), 1, tensor([1., 2.]))
    >>> folder.cleanup()
    """

    def __init__(
        self,
        dataset: MapDataset,
        cache: LogitSource | Sequence[LogitCache],
        *,
        check_inputs: CheckInputs = "sample",
        compare_labels: bool = True,
        keys: ItemKeys | None = None,
    ) -> None:
        """Several caches are read as an `Ensemble` with the mean of their softmaxes at T = 1; pass an `Ensemble` for
        another mean. check_inputs: see `CheckInputs`. compare_labels: False where the labels are meant to be others
        than the teacher's pass had, as mixed ones. keys: where input and label of an item are, if it is a dictionary
        or a longer tuple: `("image", "label")`, `(0, 1)`, or `(("input_ids", "attention_mask"), "label")`; what is
        returned is then (input, label, teacher_logits).

        Raises MismatchError unless the dataset, or what it is a Subset of, is as long as the cache, where views are
        within a ConcatDataset or another that cannot be asked for them, where
        `decant.Views` are others than those of the cache, and where all inputs are to be checked and the cache has no
        checksums.
        """
        source = one_source(cache)
        self._epoch = SharedEpoch()
        self._alignment = Alignment(
            source, check_inputs=check_inputs, compare_labels=compare_labels, warn_once=self._epoch.warn_once
        )
        require_map_style(dataset, "logits belong to samples by their index")
        self.dataset, self.cache, self.item_keys = dataset, source, keys
        self._data = cached_data(dataset, source.num_samples)
        self._indices = cached_indices(dataset, self._data)
        self._reads_views, self._samples_ahead = False, 0
        self._drawn = DrawnViews(len(dataset))
        require_cached_length(self._data, source)
        if source.num_views > 1 and (holder := holder_of_views(self._data)):
            raise views_within(source, holder)
        # A TensorDataset would take the view for a second index into its tensors.
        if source.num_views > 1 and isinstance(self._data, TensorDataset):
            raise takes_no_view(source, self._data)
        views = self._views = self._data if isinstance(self._data, ReadsViews) else None
        if views is not None:
            require_same_views(views, source)
            self._alignment.compare_labels = compare_labels and not views.mixes_labels
        self._alignment.require_checksums()
        doubt_class_names(source, getattr(self._data, "classes", None))

    @property
    def check_inputs(self) -> CheckInputs:
        """Whose inputs are compared with what the teacher saw."""
        return self._alignment.check_inputs

    @property
    def compare_labels(self) -> bool:
        """Whether labels are compared with those of the teacher's pass."""
        return self._alignment.compare_labels

    def set_epoch(self, epoch: int) -> None:
        """From now on a key without a view reads view `epoch mod V`, in this process and in every live worker.

        Call it before each epoch's iteration over a DataLoader. Workers that have batches in flight see it at their
        next batch. Raises ValueError for an epoch below 0, CorruptError where the cache has changed since it was read.

        >>> import tempfile
        >>> from decant.cache import Store, import_logits
        >>> folder = tempfile.TemporaryDirectory()
        >>> logits = np.float32([[[1, -1], [-2, 2]], [[3, -3], [-4, 4]]])  # two views of two samples
        >>> path = import_logits(Store(folder.name), logits, None, teacher={}, data={"name": "toy"})
        >>> class Views:
        ...     def __len__(self):
        ...         return 2
        ...     def __getitem__(self, key):
        ...         index, view = key
        ...         return torch.full((2,), index + 10 * view), 0
        >>> train = SoftLabelDataset(Views(), LogitCache.open(path), check_inputs="off")
        >>> for epoch in range(3):
        ...     train.set_epoch(epoch)
        ...     print(train[1][0].tolist(), train[1][2].tolist())
        [1, 1] [-2.0, 2.0]
        [11, 11] [-4.0, 4.0]
        [1, 1] [-2.0, 2.0]
        >>> folder.cleanup()
        """
        self.check_unchanged()
        self._epoch.set(epoch)

    @property
    def is_lazy(self) -> bool:
        """Whether a cache is read whose blocks are still fetched from elsewhere; see `LogitCache.open`."""
        return any(member.is_lazy for member in self.cache.members)

    def prefetch(self, keys: Keys) -> None:
        """Has the logits of keys that are read soon fetched in the background, where a cache is read lazily."""
        indices, views, _ = self._split(keys)
        rows = self._rows(indices)
        for member in self.cache.members:
            member.prefetch(rows, views)

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where a cache is no longer what was read from it; see `LogitCache.check_unchanged`.

        `set_epoch` does so without checksums. Call it with `checksums=True` when training is done, before the student
        is saved.
        """
        for member in self.cache.members:
            member.check_unchanged(checksums=checksums)

    @property
    def transform(self) -> Any:
        """The transform of the dataset or its views, where that has one.

        Raises TypeError where it is set, as timm's `create_loader` does: the teacher saw other pixels.
        """
        return self.dataset.transform  # type: ignore[attr-defined]

    @transform.setter
    def transform(self, _: object) -> None:
        raise TypeError(
            "transform: cannot be set on a dataset of cached logits, as the teacher saw other pixels: give it to "
            "decant.Views(dataset, transform), and load batches by torch.utils.data.DataLoader"
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Any:
        """(input, label, teacher_logits (C,) float32), or a dictionary; `key` is an index or (index, view)."""
        return self._items(*self._split([key]))[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[Any]:
        """An item for each key, for a DataLoader to collate; the logits are read in one call.

        An index that a sampler draws again in an epoch takes the next view each time, where the epoch was set. That is
        counted by the process that reads.
        """
        epoch, calls = self._epoch.number, self._epoch.calls
        indices, views = self._drawn.split(keys, self.cache.num_views, epoch, calls)
        if calls and self.cache.num_views > 1 and not isinstance(keys[0], tuple):
            self._watch_passes(len(keys), epoch)
        return self._items(indices, views, not all(isinstance(key, tuple) for key in keys))

    def _items(self, indices: NDArray[np.intp], views: NDArray[np.intp], without_view: bool) -> list[Any]:
        """Items of (index, view), with their logits."""
        items, inputs, labels = self._read(indices, views)
        if without_view and self.cache.num_views > 1:
            self._say_view_0()
        logits = self._logits(indices, views, inputs, labels)
        if self.item_keys is None and all(isinstance(item, Mapping) for item in items):
            return [{**item, "teacher_logits": row} for item, row in zip(items, logits, strict=True)]
        pairs: Iterable[Any] = (
            items if self.item_keys is None and all(map(is_pair, items)) else map(self._pair, items)
        )
        if len(labels) and labels[0] is None:
            pairs = [(given, -1 if label is None else label) for given, label in pairs]
        return [(*pair, row) for pair, row in zip(pairs, logits, strict=True)]

    def _read(self, indices: NDArray[np.intp], views: NDArray[np.intp]) -> tuple[list[Any], Any, Any]:
        """Items, and of each the input and the label that are compared with what the teacher's pass saw."""
        source, places = self._source(indices)
        if self._views is not None:  # what was looked for once: to ask whether it is such a class takes 15 µs
            return self._views.read_views(np.stack([places, views], axis=1))
        if self.cache.num_views == 1:
            items = [read_item(self.dataset, index) for index in indices.tolist()]
        else:
            items = self._read_views(source, places, views)
        pairs = [self._pair(item) for item in items]
        inputs, labels = zip(*pairs, strict=True) if pairs else ((), ())
        return items, inputs, labels

    def _pair(self, item: Any) -> tuple[Any, Any]:
        """(input, label) of an item. Raises TypeError where it is not known where they are."""
        if self.item_keys is None and not is_pair(item):
            return pick(item, getattr(self._data, "given_keys", None) or recognise(item))
        return (item[0], item[1]) if self.item_keys is None else pick(item, self.item_keys)

    def batch(self, keys: Keys) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(inputs (B, …), labels (B,), teacher_logits (B, C) float32), with the dataset's own `batch`."""
        if self._indices is None and type(keys) is np.ndarray and keys.ndim == 2 and keys.dtype is _INTP:
            pairs = cast("NDArray[np.intp]", keys)
            indices, views = pairs[:, 0], pairs[:, 1]  # whose range the cache checks as it is read
            given = self.dataset.batch(keys)  # type: ignore[attr-defined]
        else:
            indices, views, without_view = self._split(keys)
            source, places = self._source(indices)
            given = source.batch(np.stack([places, views], axis=1))
            if without_view:
                self._say_view_0()
        inputs, labels = given if is_pair(given) else pick(given, self.item_keys)
        return inputs, labels, self._logits(indices, views, inputs, labels)

    def _split(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
        """Keys as indices and views, and whether one has no view though there are several; it is of the epoch's."""
        pairs = isinstance(keys, np.ndarray) and keys.ndim == 2
        if self.cache.num_views == 1 or pairs or all(isinstance(key, tuple) for key in keys):
            return *split_keys(keys, len(self)), False
        return *split_keys(keys, len(self), self._epoch.number % self.cache.num_views), True

    def _watch_passes(self, count: int, epoch: int) -> None:
        """Says that new workers read the same view a third time; others go on with the next view by themselves."""
        if self._epoch.is_third_pass(count, len(self)):
            views = self.cache.num_views
            self._epoch.warn_once(
                "views",
                f"{self.cache.path}: a third pass of a loader reads view {epoch % views}, of {views}, as "
                f"set_epoch({epoch}) was the last call: call set_epoch(epoch) before each epoch",
            )

    def _say_view_0(self) -> None:
        """Says that keys without a view read view 0, unless an epoch was set."""
        if not self._epoch.calls:
            views = self.cache.num_views
            self._epoch.warn_once(
                "views",
                f"{self.cache.path}: keys without a view read view 0 only, of {views}: call set_epoch(epoch) before "
                f"each epoch to read view epoch mod {views}, or use keys (index, view); set_epoch(0) means view 0, and "
                "says nothing",
            )

    def _read_views(self, source: Any, places: NDArray[np.intp], views: NDArray[np.intp]) -> list[Any]:
        """Items by (index, view). Raises MismatchError where the dataset takes an index alone."""
        keys = list(zip(places.tolist(), views.tolist(), strict=True))
        try:
            items = [source[key] for key in keys]
        except (TypeError, IndexError, KeyError, ValueError) as error:
            if self._reads_views or not takes_index(source, keys[0][0]):
                raise
            raise takes_no_view(self.cache, self._data) from error
        self._reads_views = True
        return items

    def _logits(
        self, indices: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, labels: Any
    ) -> torch.Tensor:
        """(B, C) float32, or (B, K, C) of an ensemble that averages nothing, once labels and inputs are checked."""
        rows = self._rows(indices)
        logits = self._read_logits(rows, views)
        # That has checked the blocks of these rows, and so their labels and input checksums.
        self._alignment.check(rows, views, inputs, labels)
        return logits

    def _rows(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """The samples of the cache that samples of this dataset are."""
        return indices if self._indices is None else self._indices[indices]

    def _read_logits(self, rows: NDArray[np.intp], views: NDArray[np.intp]) -> torch.Tensor:
        """(B, C) float32, or (B, K, C)."""
        logits = self.cache.logits(rows, views if self.cache.num_views > 1 or np.count_nonzero(views) else 0)
        return torch.from_numpy(logits).float()  # which torch does 20 times as fast as numpy

    def _source(self, indices: NDArray[np.intp]) -> tuple[Any, NDArray[np.intp]]:
        """The dataset, or for a Subset the cached data, which take (index, view) as no Subset does; and the indices
        there.
        """
        if self._indices is None:
            return self.dataset, indices
        return self._data, self._indices[indices]

    def check_labels(self, rows: NDArray[np.intp], labels: Any) -> None:
        """Raises MismatchError where labels differ from those that the cache has of these samples `rows` (B,)."""
        self._alignment.check_labels(rows, labels)

    def check_input(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> None:
        """Raises MismatchError where an input of a batch (B, …) is not what the teacher saw of these samples and views,
        both (B,): the first, or any where all are checked.
        """
        self._alignment.check_input(rows, views, inputs)

    def batches(self, keys: Sequence[Keys]) -> list[tuple[torch.Tensor, ...]]:
        """`batch` of each of several keys, made in one call, where the inputs of the dataset's own `batch` are tensors:
        of the same bytes and compared with the same of the teacher's inputs, in less time where batches are small.
        """
        together = np.concatenate(keys)
        made = self.batch(together)
        if self.check_inputs == "sample":
            self._compare_first_inputs(together, [len(each) for each in keys], made[0])
        return split_batch(made, keys)

    def each_batch(self, keys: Iterable[Keys]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """`batch` of each of `keys`, arrays (B, 2) of index and view, one after another: of the same bytes and compared
        with the same, in less time where batches are small. Logits and labels of several batches, about 1 MiB, are
        read in one call before these are made; their logits are parts of one tensor.

        Raises what `batch` does, of a batch when its turn comes.

        >>> import tempfile
        >>> from decant.cache import Store, import_logits
        >>> folder, labels = tempfile.TemporaryDirectory(), np.array([0, 1, 1])
        >>> logits = np.float32([[1, -1], [-2, 2], [-3, 3]])
        >>> path = import_logits(Store(folder.name), logits, labels, teacher={}, data={"name": "toy"})
        >>> class Batches:
        ...     __len__ = lambda self: 3
        ...     __getitem__ = lambda self, key: (torch.zeros(4), labels[key])
        ...     def batch(self, keys):
        ...         return torch.zeros(len(keys), 4), torch.from_numpy(labels[keys[:, 0]])
        >>> train = SoftLabelDataset(Batches(), LogitCache.open(path), check_inputs="off")
        >>> keys = [np.array([[2, 0], [0, 0]]), np.array([[1, 0]])]
        >>> [(labels.tolist(), logits.tolist()) for _, labels, logits in train.each_batch(keys)]
        [([1, 0], [[-3.0, 3.0], [1.0, -1.0]]), ([1], [[-2.0, 2.0]])]
        >>> folder.cleanup()
        """
        left = iter(keys)
        for first in left:
            run = take_run(first, left, self._samples_ahead, _MOST_AHEAD)
            yield from in_turn(self._read_ahead, self.batch, run)

    def _read_ahead(self, run: Sequence[Keys]) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """`batch` of each of several keys, one after another, once the logits and labels of all are read."""
        bounds, together = [0, *accumulate(map(len, run))], np.concatenate(run)
        indices, views, _ = self._split(together)
        rows = self._rows(indices)
        logits = self._read_logits(rows, views).numpy()
        if len(rows):
            self._samples_ahead = _BYTES_AHEAD * len(rows) // max(1, logits.nbytes)
        expected = ExpectedBatches(self.cache, rows, views, bounds)
        made = self._made(together, bounds, expected)

        def joined() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
            for number, (found, first, end) in enumerate(zip(made, bounds[:-1], bounds[1:], strict=True)):
                inputs, labels = found if is_pair(found) else pick(found, self.item_keys)
                if not self._alignment.is_expected(expected, number, inputs, labels):
                    self._alignment.check(rows[first:end], views[first:end], inputs, labels)
                yield inputs, labels, torch.from_numpy(logits[first:end])

        return joined()

    def _made(self, keys: Keys, bounds: Sequence[int], expected: ExpectedBatches) -> Iterator[Any]:
        """What the dataset's own `batch` makes of several batches of keys, one after another. Labels that the dataset
        gives before inputs are compared with those that are expected.
        """
        source: Any = self.dataset
        if self._indices is not None:
            indices, views, _ = self._split(keys)
            source, places = self._source(indices)
            keys = np.stack([places, views], axis=1)
        # Of its class: what hands on attributes of another dataset has a `batch` of its own, and none of this.
        labels_first: LabelsFirst | None = (
            source.labels_first if hasattr(type(source), "labels_first") else None
        )
        found = None if labels_first is None else labels_first(keys)
        if found is None:
            return (source.batch(keys[first:end]) for first, end in pairwise(bounds))
        labels, inputs_of = found
        expected.compare_labels(labels)
        return ((inputs_of(*places), torch.from_numpy(labels[slice(*places)])) for places in pairwise(bounds))

    def _compare_first_inputs(self, keys: Keys, sizes: Sequence[int], inputs: torch.Tensor) -> None:
        """The same as `check_input` of each of several batches but the first. Raises CorruptError where it is the cache
        that has changed.
        """
        indices, views, _ = self._split(keys)
        rows = self._rows(indices)
        starts = [0, *accumulate(sizes)]
        others = [batch for batch in pairwise(starts[1:]) if batch[0] < batch[1]]
        if self._alignment.have_recorded_bytes(rows, views, inputs, [start for start, _ in others]):
            return
        try:
            for start, end in others:
                batch = slice(start, end)
                self._alignment.check_input(rows[batch], views[batch], inputs[batch])
        except MismatchError:
            self.check_unchanged()
            raise
