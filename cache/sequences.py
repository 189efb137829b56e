"""SequenceDataset: joins sequences of any length with the rows of their positions, and refuses other sequences."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from decant.cache.alignment.checks import Alignment
from decant.cache.alignment.items import ItemKeys, pick, recognise
from decant.cache.encodings import Sparse, SparseRows
from decant.cache.errors import MismatchError
from decant.cache.inputs import CheckInputs
from decant.cache.pickled import OfOneVersion
from decant.cache.reader import LogitCache
from decant.cache.shared_epoch import SharedEpoch

_AROUND = 3  # tokens shown on each side of one that differs


class Sequences(Protocol):
    """What is joined with rows: a length, and an item by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class SequenceBatch:
    """Some samples, padded on the right, and the teacher's row for each of their positions."""

    inputs: Tensor
    """(B, L, …): sequences of the same dtype, padded."""
    mask: Tensor
    """(B, L) int64: 1 in a sequence, 0 in its padding."""
    labels: Tensor
    """(B,), or (B, L) padded where each place has one."""
    indices: NDArray[np.int64]
    """(B,): which samples."""
    view: int
    offsets: NDArray[np.int64]
    """(B + 1,): where the rows of each sample begin."""
    places: NDArray[np.int64]
    """(Q,): at which place of its sequence each row is."""
    teacher_logits: Tensor | None
    """(Q, C) float32 of a cache of all logits; None of a sparse one."""
    rows: SparseRows | None
    """(Q, k) of a sparse cache, which `decant.objectives.SparseTargets.of` takes; None of another."""

    def at(self, outputs: Tensor) -> Tensor:
        """(Q, …): what a network gives for all places, (B, L, …), at those that have a row.

        Of pixels, (B, C, H, W), give `outputs.flatten(2).transpose(1, 2)`, and `labels.flatten(1)` of labels (B, H, W).

        Raises IndexError for outputs of another number of samples, and where a sample has a row beyond the network's
        places.
        """
        if outputs.ndim < 2 or len(outputs) != len(self.indices):
            raise IndexError(
                f"outputs: expected (B, L, …) of {len(self.indices):,} samples, found {tuple(outputs.shape)}; a "
                "recurrent network needs batch_first=True"
            )
        length = outputs.shape[1]
        if self.places.size and self.places.max() >= length:
            pixels = {3: "labels.flatten(1)", 4: "outputs.flatten(2).transpose(1, 2)"}.get(outputs.ndim)
            raise IndexError(
                f"outputs: {length:,} places, and there is a row at place {self.places.max():,}"
                + (f"; of pixels give {pixels}" if pixels else "")
            )
        samples = np.repeat(np.arange(len(self.indices)), np.diff(self.offsets))
        flat = torch.from_numpy(samples * length + self.places)
        return outputs.flatten(0, 1)[flat.to(outputs.device)]


class SequenceDataset(OfOneVersion, Dataset[Any]):
    """A map-style dataset of sequences whose positions have rows in a cache. `collate` makes a `SequenceBatch` of some
    items, to be given to a DataLoader as `collate_fn`.

    dataset: `dataset[i]` is (input, label) of sample i of the cache, or a dictionary that has them, as `keys` says. An
    input is a tensor or an array (L,) of token ids, or (L, …) of anything else. A label is one number, or one for each
    place, (L,).

    All token ids of a batch are compared with those that the teacher read, where the cache has them; other inputs by
    their checksums, as `SoftLabelDataset` does. With several views, epoch e reads view e mod V, see `set_epoch`.

    >>> import tempfile
    >>> from torch.utils.data import DataLoader
    >>> from decant.cache import LogitCacheWriter, Manifest, Positions
    >>> folder, texts = tempfile.TemporaryDirectory(), [[5, 3, 4], [2]]
    >>> positions = Positions.of([3, 1], tokens=[5, 3, 4, 2], predicts="here")
    >>> of = Manifest.build(num_samples=2, num_outputs=3, positions=positions)
    >>> with LogitCacheWriter(f"{folder.name}/tags.h5", of, positions=positions) as writer:
    ...     writer.write([0, 1], np.eye(4, 3))
    ...     cache = LogitCache.open(writer.publish())
    >>> train = SequenceDataset([(torch.tensor(ids), torch.tensor(ids) % 3) for ids in texts], cache)
    >>> batch = next(iter(DataLoader(train, batch_size=2, collate_fn=train.collate)))
    >>> batch.inputs.tolist(), batch.offsets.tolist(), batch.teacher_logits.shape
    ([[5, 3, 4], [2, 0, 0]], [0, 3, 4], torch.Size([4, 3]))
    >>> batch.at(torch.zeros(2, 3, 7)).shape
    torch.Size([4, 7])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        dataset: Sequences,
        cache: LogitCache,
        *,
        keys: ItemKeys | None = None,
        padding: float = 0,
        label_padding: float = -100,
        check_inputs: CheckInputs = "sample",
    ) -> None:
        """keys: where input and label of an item are, if it is a dictionary or a longer tuple, as `("input_ids",
        "labels")`. padding and label_padding: what stands where a sequence has ended. check_inputs: of inputs that are
        no token ids, see `CheckInputs`.

        Raises MismatchError for a cache without positions, and unless the dataset is as long as the cache.
        """
        if not cache.has_positions:
            raise MismatchError(
                f"{cache.path}: has one row for each sample: read it with decant.SoftLabelDataset"
            )
        if len(dataset) != cache.num_samples:
            raise MismatchError(
                f"{cache.path}: data.length: the dataset has {len(dataset):,}, the cache {cache.num_samples:,}"
            )
        self.dataset, self.cache, self.item_keys = dataset, cache, keys
        self._padding, self._label_padding = padding, label_padding
        self._has_tokens = cache.manifest.identity["positions"]["tokens"] is not None
        self._epoch = SharedEpoch()
        self._alignment = Alignment(
            cache, check_inputs=check_inputs, compare_labels=False, warn_once=self._epoch.warn_once
        )
        if not self._has_tokens:
            self._alignment.require_checksums()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any, Any]:
        """(number of the sample, its input, its label)."""
        place = range(len(self))[operator.index(index)]
        item = self.dataset[place]
        given, label = pick(item, self.item_keys or recognise(item))
        return place, given, label

    def set_epoch(self, epoch: int) -> None:
        """From now on rows are those of view epoch mod V, in this process and in every live worker. Raises ValueError,
        and CorruptError where the cache has changed since it was read.
        """
        self.cache.check_unchanged()
        self._epoch.set(epoch)

    def collate(self, items: Sequence[tuple[int, Any, Any]]) -> SequenceBatch:
        """The batch of some items. Raises MismatchError, naming the first token that differs, where a sequence is not
        the one that the teacher read, and CorruptError.
        """
        indices = np.array([item[0] for item in items], np.int64)
        inputs = [torch.as_tensor(item[1]) for item in items]
        view = self._epoch.number % self.cache.num_views
        rows = self.cache.rows(indices, view) if isinstance(self.cache.manifest.encoding, Sparse) else None
        logits = None if rows is not None else torch.from_numpy(self.cache.logits(indices, view)).float()
        self._check(indices, inputs, view)
        counts = self.cache.lengths[indices]
        return SequenceBatch(
            inputs=_padded(inputs, self._padding),
            mask=_padded([torch.ones(len(each), dtype=torch.int64) for each in inputs], 0),
            labels=self._labels([item[2] for item in items]),
            indices=indices,
            view=view,
            offsets=np.r_[0, np.cumsum(counts)],
            places=self.cache.places(indices),
            teacher_logits=logits,
            rows=rows,
        )

    def _labels(self, labels: list[Any]) -> Tensor:
        given = [torch.as_tensor(-100 if label is None else label) for label in labels]
        return torch.stack(given) if given[0].ndim == 0 else _padded(given, self._label_padding)

    def _check(self, indices: NDArray[np.int64], inputs: list[Tensor], view: int) -> None:
        if not self._has_tokens:
            views = np.full(len(indices), view, np.intp)
            self._alignment.check_input(indices.astype(np.intp), views, inputs)
            return
        expected, offsets = self.cache.tokens(indices)
        for number, (index, given) in enumerate(zip(indices.tolist(), inputs, strict=True)):
            theirs = expected[offsets[number] : offsets[number + 1]]
            ours = given.numpy()
            if ours.dtype.kind not in "iu" or not np.array_equal(ours, theirs):
                raise MismatchError(f"{self.cache.path}: sample {index:,}: {_first_difference(ours, theirs)}")


def _padded(sequences: list[Tensor], value: float) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)


def _first_difference(ours: NDArray[Any], theirs: NDArray[np.int64]) -> str:
    """In words."""
    if ours.ndim != 1 or ours.dtype.kind not in "iu":
        return f"expected token ids (L,), found {ours.shape} {ours.dtype}"
    shared = min(len(ours), len(theirs))
    place = int(np.argmax(np.r_[ours[:shared] != theirs[:shared], True]))
    if place == shared:
        return f"has {len(ours):,} tokens, and the teacher read {len(theirs):,}"
    near = slice(max(0, place - _AROUND), place + _AROUND + 1)
    return (
        f"token {place:,} is {ours[place]}, and the teacher read {theirs[place]}: {ours[near].tolist()} where it read "
        f"{theirs[near].tolist()}"
    )
