"""Hugging Face's datasets: which rows of a cache a selected, filtered or shuffled dataset has."""

from __future__ import annotations

import datasets
import numpy as np
from numpy.typing import NDArray

from decant.pipeline.errors import DataError


def kept_rows(dataset: datasets.Dataset, of: int | None = None) -> NDArray[np.intp]:
    """The rows (M,) that `dataset` keeps of the one that it was made of by `select`, `filter`, `shuffle`, `shard` or
    `train_test_split`.

    A cache has a row for each sample of the whole dataset. `torch.utils.data.Subset(views, kept_rows(filtered))` are
    the views of the samples that `filtered` has, and `SoftLabelDataset` follows a Subset to their rows of the cache.

    of: the length of the whole dataset. Raises DataError where it was another, as `map`, `flatten_indices` and
    `concatenate_datasets` write a new table, in which no sample has its old place; and for a streaming dataset.

    >>> whole = datasets.Dataset.from_dict({"label": [0, 1, 0, 1]})
    >>> kept_rows(whole.select([3, 1]), of=4).tolist()
    [3, 1]
    >>> kept_rows(whole, of=4).tolist()
    [0, 1, 2, 3]
    """
    if not isinstance(dataset, datasets.Dataset):
        raise DataError(
            f"expected a datasets.Dataset, found {type(dataset).__name__}: a streaming dataset has no index; "
            "decant.attach joins its samples with their logits where they carry one"
        )
    whole = len(dataset.data)
    if of is not None and whole != of:
        raise DataError(
            f"the table behind the dataset has {whole:,} rows, and {of:,} were expected: after map or flatten_indices "
            "no sample has its old place; filter or select last, or build a cache of this dataset"
        )
    if dataset._indices is None:
        return np.arange(whole)
    return dataset._indices.column(0).to_numpy().astype(np.intp)
