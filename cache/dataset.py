"""SoftLabelDataset: joins the samples of a dataset with their cached logits, and refuses a cache of something else."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from decant.cache import labels as kinds_of_labels
from decant.cache.ensemble import Ensemble
from decant.cache.errors import CacheWarning, MismatchError
from decant.cache.inputs import CheckInputs, each_input, input_crc32, one_input
from decant.cache.items import ItemKeys, is_pair, pick
from decant.cache.keys import Key, Keys, split_keys
from decant.cache.reader import LogitCache
from decant.cache.same_input import difference, matching_form
from decant.cache.source import LogitSource

_PROBES = 256
_EPOCH, _VIEW_SAID, _LABELS_SAID, _INPUTS_SAID, _SHARED = range(5)
"""Places of the integers that a dataset shares with its workers: the epoch, −1 until it is set; what was said."""


class MapDataset(Protocol):
    """What a dataset needs: a length, and (input, label) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> tuple[Any, Any]: ...


class SoftLabelDataset(Dataset[tuple[Any, Any, torch.Tensor]]):
    """A map-style dataset of (input, label, teacher_logits).

    dataset: `dataset[i]` is (input, label) of sample i of the cache; where the cache has several views, `dataset[i, v]`
    is that of view v. A `torch.utils.data.Subset` of the cached data is followed through its indices. A dataset with a
    method `batch(keys) → (inputs, labels)` is read a whole batch at a time by `batch`, the faster way.

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
        or a longer tuple: `("image", "label")`, `(0, 1)`, or `(("input_ids", "attention_mask"), "label")`.

        Raises MismatchError unless the dataset, or what it is a Subset of, is as long as the cache, and where all
        inputs are to be checked and the cache has no checksums.
        """
        if isinstance(cache, Sequence):
            cache = cache[0] if len(cache) == 1 else Ensemble(cache)
        if check_inputs not in ("sample", "all", "off"):
            raise ValueError(f"check_inputs: expected sample, all or off, found {check_inputs!r}")
        _require_map_style(_root(dataset))
        self.dataset, self.cache, self.check_inputs = dataset, cache, check_inputs
        self.compare_labels, self.item_keys = compare_labels, keys
        self._indices = _cached_indices(dataset)
        self._shared = torch.zeros(_SHARED, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]
        self._shared[_EPOCH] = -1
        self._reads_views = self._mixes_labels = False
        self._form: str | None = (
            None  # in which inputs are what the teacher saw, where their bytes are others
        )
        length = len(_root(dataset))
        if length != cache.num_samples:
            raise MismatchError(
                f"{cache.path}: data.length: the dataset has {length:,}, the cache {cache.num_samples:,}"
            )
        if cache.num_views > 1 and isinstance(_root(dataset), TensorDataset):
            raise self._takes_no_view()  # it would take the view for a second index into its tensors
        if check_inputs != "off" and not _has_checksums(cache):
            self._without_checksums()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copy that was made by pickle has memory of its own, which its workers share.
        self._shared.share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """From now on a key without a view reads view `epoch mod V`, in this process and in every live worker.

        Call it before each epoch's iteration over a DataLoader. Workers that have batches in flight see it at their
        next batch. Raises ValueError for an epoch below 0.

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
        number = operator.index(epoch)
        if number < 0:
            raise ValueError(f"epoch: counts from 0, found {epoch}")
        self._shared[_EPOCH] = number

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Any, Any, torch.Tensor]:
        """(input, label, teacher_logits (C,) float32); `key` is an index or (index, view)."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Any, Any, torch.Tensor]]:
        """A tuple for each key, for a DataLoader to collate; the logits are read in one call."""
        indices, views, without_view = self._split(keys)
        if self.cache.num_views == 1:
            items = [self.dataset[index] for index in indices.tolist()]
        else:
            items = self._read_views(*self._source(indices), views)
        if without_view:
            self._say_view_0()
        if self.item_keys is not None or not all(map(is_pair, items)):
            items = [pick(item, self.item_keys) for item in items]
        inputs, labels = zip(*items, strict=True) if items else ((), ())
        logits = self._logits(indices, views, inputs, labels)
        return list(zip(inputs, labels, logits, strict=True))

    def batch(self, keys: Keys) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(inputs (B, …), labels (B,), teacher_logits (B, C) float32), with the dataset's own `batch`."""
        indices, views, without_view = self._split(keys)
        source, places = self._source(indices)
        as_given = places is indices and isinstance(keys, np.ndarray) and keys.ndim == 2
        given = source.batch(keys if as_given else np.stack([places, views], axis=1))
        if without_view:
            self._say_view_0()
        inputs, labels = given if is_pair(given) else pick(given, self.item_keys)
        return inputs, labels, self._logits(indices, views, inputs, labels)

    def _split(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp], bool]:
        """Keys as indices and views, and whether one has no view though there are several; it is of the epoch's."""
        pairs = isinstance(keys, np.ndarray) and keys.ndim == 2
        if self.cache.num_views == 1 or pairs or all(isinstance(key, tuple) for key in keys):
            return *split_keys(keys, len(self)), False
        view = max(int(self._shared[_EPOCH]), 0) % self.cache.num_views
        return *split_keys(keys, len(self), view), True

    def _say_view_0(self) -> None:
        """Says that keys without a view read view 0, unless an epoch was set."""
        if self._shared[_EPOCH] < 0:
            views = self.cache.num_views
            self._say_once(
                _VIEW_SAID,
                f"keys without a view read view 0 only, of {views}: call set_epoch(epoch) before each epoch to read "
                f"view epoch mod {views}, or use keys (index, view); set_epoch(0) means view 0, and says nothing",
            )

    def _read_views(self, source: Any, places: NDArray[np.intp], views: NDArray[np.intp]) -> list[Any]:
        """Items by (index, view). Raises MismatchError where the dataset takes an index alone."""
        keys = list(zip(places.tolist(), views.tolist(), strict=True))
        try:
            items = [source[key] for key in keys]
        except (TypeError, IndexError, KeyError, ValueError) as error:
            if self._reads_views or not _takes_index(source, keys[0][0]):
                raise
            raise self._takes_no_view() from error
        self._reads_views = True
        return items

    def _logits(
        self, indices: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, labels: Any
    ) -> torch.Tensor:
        """(B, C) float32, or (B, K, C) of an ensemble that averages nothing, once labels and inputs are checked."""
        rows = indices if self._indices is None else self._indices[indices]
        logits = self.cache.logits(rows, views if self.cache.num_views > 1 or views.any() else 0)
        # That has checked the blocks of these rows, and so their labels and input checksums.
        if self.compare_labels:
            self.check_labels(rows, labels)
        self._check_inputs(rows, views, inputs)
        return torch.from_numpy(logits).float()  # which torch does 20 times as fast as numpy

    def _source(self, indices: NDArray[np.intp]) -> tuple[Any, NDArray[np.intp]]:
        """The dataset, or for a Subset its root, which takes (index, view) as no Subset does; and the indices there."""
        if self._indices is None:
            return self.dataset, indices
        return _root(self.dataset), self._indices[indices]

    def check_labels(self, rows: NDArray[np.intp], labels: Any) -> None:
        """Raises MismatchError where labels differ from those that the cache has of these samples `rows` (B,)."""
        cached = self.cache.labels[rows]
        none = np.isnan(cached) if cached.dtype.kind == "f" else cached == -1
        if none.all():
            return
        try:
            given = self._as_cached(labels, cached)
        except kinds_of_labels.NotComparableError as error:
            self._say_once(
                _LABELS_SAID,
                f"labels are not compared with those of the teacher's pass: they are {error}, and the cache has "
                f"{'targets' if cached.dtype.kind == 'f' else 'class ids'} {cached.shape}; compare_labels=False "
                "silences this",
            )
            return
        if np.array_equal(given, cached):
            return
        closeness = 2**-8 if cached.dtype.kind == "f" and kinds_of_labels.is_half(labels) else 0.0
        different = ~(np.abs(given - cached) <= closeness * np.abs(cached)) & ~none
        different = np.flatnonzero(different.reshape(len(rows), -1).any(axis=1))
        if len(different):
            place = different[0]
            raise MismatchError(
                f"{self.cache.path}: sample {rows[place]}: its label is {given[place]}, and was "
                f"{cached[place]} when the teacher saw it: the data are re-ordered or relabelled, or the teacher's "
                "pass was over a shuffled loader; build a cache of these data"
            )

    def _as_cached(self, labels: Any, cached: NDArray[Any]) -> NDArray[Any]:
        """Labels in the shape of the cached ones. Raises NotComparableError."""
        if cached.dtype.kind == "f":
            return kinds_of_labels.targets(labels, cached.shape)
        names = self.cache.manifest.identity["data"].get("classes")
        try:
            ids = kinds_of_labels.class_ids(
                labels, self.cache.num_outputs, names if isinstance(names, list) else None
            )
        except kinds_of_labels.NotComparableError:
            self._mixes_labels = True
            raise
        if self._mixes_labels and _are_float_rows(labels):  # a mixed label may be the other sample's, whole
            raise kinds_of_labels.NotComparableError("mixed or soft")
        if len(ids) != len(cached):
            raise kinds_of_labels.NotComparableError(f"of shape {ids.shape}")
        return ids

    def _check_inputs(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> None:
        count = {"all": len(rows), "sample": min(1, len(rows)), "off": 0}[self.check_inputs]
        for place in range(count):
            row, view = int(rows[place]), int(views[place])
            cached = int(self.cache.input_crc32[view, row])
            if not cached:
                continue
            value = one_input(inputs, place)
            found = input_crc32(value)
            if found is None:
                self._cannot_check(value)
            elif found != cached and not self._is_same(value, cached):
                cause = difference(value, cached) or self._likely_cause(rows, views, inputs)
                raise MismatchError(
                    f"{self.cache.path}: sample {row}, view {view}: the input is not what the teacher saw "
                    f"(CRC-32 expected {cached:08x}, found {found:08x}): {cause}; build a cache of these inputs"
                )

    def _is_same(self, value: Any, crc32: int) -> bool:
        """Whether an input holds the values that the teacher saw, in another layout or dtype."""
        form = matching_form(value, crc32, self._form)
        self._form = form or self._form
        return form is not None

    def _cannot_check(self, value: Any) -> None:
        text = (
            f"inputs of type {type(value).__name__} cannot be compared with what the teacher saw; tensors, arrays, "
            "images and dictionaries of them can"
        )
        if self.check_inputs == "all":
            raise MismatchError(f'{self.cache.path}: {text}; check_inputs="off" takes them unchecked')
        self._say_once(_INPUTS_SAID, f'{text}; check_inputs="off" silences this')

    def _without_checksums(self) -> None:
        """Refuses to check all inputs against a cache without checksums, and says that none is checked."""
        text = (
            "inputs cannot be compared with what the teacher saw, as the cache has no checksums of them: write it with "
            "LogitCacheWriter.write(…, inputs=…)"
        )
        if self.check_inputs == "all":
            raise MismatchError(f"{self.cache.path}: check_inputs: {text}")
        self._say_once(_INPUTS_SAID, f'{text}; check_inputs="off" silences this')

    def _takes_no_view(self) -> MismatchError:
        return MismatchError(
            f"{self.cache.path}: has {self.cache.num_views} views, and {type(_root(self.dataset)).__name__} takes an "
            "index alone: dataset[index, view] must be (input, label) of that view, with the pixels that the teacher "
            "saw. decant.pipeline.views.ViewedData is such a dataset of a recipe's data and views; in a class of your "
            "own, let __getitem__ take (index, view)"
        )

    def _say_once(self, said: int, text: str) -> None:
        """Warns once a dataset, whichever process is the first to notice."""
        if not self._shared[said]:
            self._shared[said] = 1
            warnings.warn(f"{self.cache.path}: {text}", CacheWarning, stacklevel=2)

    def _likely_cause(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> str:
        """What probably changed since the teacher's pass: by how many inputs differ, and by the recorded versions."""
        cached = self.cache.input_crc32[views, rows]
        pairs = zip(each_input(inputs), cached.tolist(), strict=True)
        different = sum(input_crc32(value) != crc and not self._is_same(value, crc) for value, crc in pairs)
        versions = self.cache.manifest.info.get("versions")
        changed = [
            f"{name} {then} → {now}"
            for name, then in (versions.items() if isinstance(versions, dict) else ())
            if (now := _installed(name)) is not None and now != str(then).partition("+")[0]
        ]
        found = f"{different:,} of these {len(rows):,} inputs differ"
        if 4 * different < len(rows):
            return f"{found}: the data of those samples have changed"
        if changed:
            return f"{found}, and a library is another since: {', '.join(changed)}"
        return f"{found}: the transform has changed, or the data or their order"


def _require_map_style(dataset: Any) -> None:
    """Raises TypeError for what gives its samples in an order of its own, as an IterableDataset or a DataLoader."""
    indexed = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not indexed or not hasattr(dataset, "__len__"):
        raise TypeError(
            f"expected a map-style dataset, with a length and an index, found {type(dataset).__name__}: logits belong "
            "to samples by their index"
        )


def _has_checksums(cache: LogitSource) -> bool:
    """Whether inputs have checksums: looks at the first rows, and where they have none, at some at even distances."""
    some = np.linspace(0, cache.num_samples - 1, _PROBES).astype(np.intp)
    return bool(cache.input_crc32[:, :_PROBES].any() or cache.input_crc32[:, some].any())


def _takes_index(dataset: Any, index: int) -> bool:
    try:
        dataset[index]
    except Exception:  # whatever it raises, it does not take an index
        return False
    return True


def _are_float_rows(labels: Any) -> bool:
    first = labels[0] if len(labels) else labels
    return getattr(first, "ndim", 0) == 1 and "float" in str(getattr(first, "dtype", ""))


def _installed(name: str) -> str | None:
    """The version of an installed library, without its build; None where it is not installed."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _cached_indices(dataset: Any) -> NDArray[np.intp] | None:
    """For a Subset (of a Subset …): which sample of the root each sample is; None for anything else."""
    if not isinstance(dataset, Subset):
        return None
    here = np.asarray(dataset.indices, dtype=np.intp)
    outer = _cached_indices(dataset.dataset)
    return here if outer is None else outer[here]


def _root(dataset: Any) -> Any:
    return _root(dataset.dataset) if isinstance(dataset, Subset) else dataset
