"""SoftLabelDataset: joins the samples of a dataset with their cached logits, and refuses a cache of something else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from decant.cache.ensemble import Ensemble
from decant.cache.errors import MismatchError
from decant.cache.inputs import CheckInputs, each_input, input_crc32, one_input
from decant.cache.keys import Key, Keys, split_keys
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource


class MapDataset(Protocol):
    """What a dataset needs: a length, and (input, label) by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> tuple[Any, Any]: ...


class SoftLabelDataset(Dataset[tuple[Any, Any, torch.Tensor]]):
    """A map-style dataset of (input, label, teacher_logits).

    dataset: `dataset[i]` is (input, label) of sample i of the cache; where the cache has several views, `dataset[i, v]`
    is that of view v. A `torch.utils.data.Subset` of the cached data is followed through its indices. A dataset with a
    method `batch(keys) → (inputs, labels)` is read a whole batch at a time by `batch`, the faster way.

    A label that differs from the cached one, or an input whose CRC-32 does, raises MismatchError.

    >>> import tempfile
    >>> from torch.utils.data import TensorDataset
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits = np.float32([[3, 0], [0, 3], [1, 2]])
    >>> path = import_logits(Store(folder.name), logits, np.array([0, 1, 1]), teacher={}, data={"name": "toy"})
    >>> data = TensorDataset(torch.zeros(3, 1, 4, 4), torch.tensor([0, 1, 1]))
    >>> train = SoftLabelDataset(data, LogitCache.open(path))
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
    ) -> None:
        """Several caches are read as an `Ensemble` with the mean of their softmaxes at T = 1; pass an `Ensemble` for
        another mean. check_inputs: see `CheckInputs`.

        Raises MismatchError unless the dataset, or what it is a Subset of, is as long as the cache.
        """
        if isinstance(cache, Sequence):
            cache = cache[0] if len(cache) == 1 else Ensemble(cache)
        if check_inputs not in ("sample", "all", "off"):
            raise ValueError(f"check_inputs: expected sample, all or off, found {check_inputs!r}")
        self.dataset, self.cache, self.check_inputs = dataset, cache, check_inputs
        self._indices = _cached_indices(dataset)
        length = len(_root(dataset))
        if length != cache.num_samples:
            raise MismatchError(
                f"{cache.path}: data.length: the dataset has {length:,}, the cache {cache.num_samples:,}"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Any, Any, torch.Tensor]:
        """(input, label, teacher_logits (C,) float32); `key` is an index or (index, view)."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Any, Any, torch.Tensor]]:
        """A tuple for each key, for a DataLoader to collate; the logits are read in one call."""
        indices, views = split_keys(keys, len(self))
        if self.cache.num_views == 1:
            pairs = [self.dataset[index] for index in indices.tolist()]
        else:
            source, places = self._source(indices)
            pairs = [source[place] for place in zip(places.tolist(), views.tolist(), strict=True)]
        inputs, labels = zip(*pairs, strict=True) if pairs else ((), ())
        logits = self._logits(indices, views, inputs, labels)
        return list(zip(inputs, labels, logits, strict=True))

    def batch(self, keys: Keys) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(inputs (B, …), labels (B,), teacher_logits (B, C) float32), with the dataset's own `batch`."""
        indices, views = split_keys(keys, len(self))
        source, places = self._source(indices)
        as_given = places is indices and isinstance(keys, np.ndarray) and keys.ndim == 2
        inputs, labels = source.batch(keys if as_given else np.stack([places, views], axis=1))
        return inputs, labels, self._logits(indices, views, inputs, labels)

    def _logits(
        self, indices: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, labels: Any
    ) -> torch.Tensor:
        """(B, C) float32, or (B, K, C) of an ensemble that averages nothing, once labels and inputs are checked."""
        rows = indices if self._indices is None else self._indices[indices]
        logits = self.cache.logits(rows, views if self.cache.num_views > 1 or views.any() else 0)
        # That has checked the blocks of these rows, and so their labels and input checksums.
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
        given, cached = np.asarray(labels), self.cache.labels[rows]
        kinds = "f" if cached.dtype.kind == "f" else "iub"
        if given.shape != cached.shape or given.dtype.kind not in kinds:
            return  # no label, or not one of the teacher's pass (mixed, say): nothing to compare
        if np.array_equal(given, cached):
            return
        none = np.isnan(cached) if cached.dtype.kind == "f" else cached == -1
        different = (given.astype(cached.dtype) != cached) & ~none
        different = np.flatnonzero(different.reshape(len(rows), -1).any(axis=1))
        if len(different):
            place = different[0]
            raise MismatchError(
                f"{self.cache.path}: sample {rows[place]}: its label is {given[place]}, and was "
                f"{cached[place]} when the teacher saw it: the data are re-ordered or relabelled; build a "
                "cache of these data"
            )

    def _check_inputs(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> None:
        count = {"all": len(rows), "sample": min(1, len(rows)), "off": 0}[self.check_inputs]
        for place in range(count):
            row, view = int(rows[place]), int(views[place])
            cached = int(self.cache.input_crc32[view, row])
            if cached and (found := input_crc32(one_input(inputs, place))) is not None and found != cached:
                raise MismatchError(
                    f"{self.cache.path}: sample {row}, view {view}: the input is not what the teacher saw "
                    f"(CRC-32 expected {cached:08x}, found {found:08x}): "
                    f"{self._likely_cause(rows, views, inputs)}; build a cache of these inputs"
                )

    def _likely_cause(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> str:
        """What probably changed since the teacher's pass: by how many inputs differ, and by the recorded versions."""
        cached = self.cache.input_crc32[views, rows]
        pairs = zip(each_input(inputs), cached.tolist(), strict=True)
        different = sum(input_crc32(value) != crc for value, crc in pairs)
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
        return f"{found}: the transform has changed, or much of the data"


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
