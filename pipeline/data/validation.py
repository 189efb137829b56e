"""The validation part: samples that no network is trained on, by which epochs and settings are chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import ValidationSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.data.held_out import SomeOf
from decant.pipeline.data.samples import NO_LABEL, ArrayData, LabelledData, has_labels, task_of
from decant.pipeline.errors import DataError


def hold_out(
    settings: ValidationSettings | None, train: LabelledData
) -> tuple[LabelledData, LabelledData | None]:
    """(the training part without the share that validates, that share); the part as it is and None where the recipe
    holds no share out. Raises DataError where the share comes to no sample, or to all.
    """
    if settings is None or settings.share is None:
        return train, None
    chosen = draw_share(train.labels, task_of(train), settings.share, settings.seed)
    rest = np.setdiff1d(np.arange(len(train)), chosen)
    if not len(chosen) or not len(rest):
        raise DataError(
            f"{train.name}: data.validation.share: {settings.share:g} of {len(train):,} samples leaves {len(rest):,} "
            f"to train on and {len(chosen):,} to validate with; each needs one or more, and those that validate labels"
        )
    return _some_of(train, "train", rest), _some_of(train, "validation", chosen)


def draw_share(labels: NDArray[np.generic], task: Task, share: float, seed: int) -> NDArray[np.int64]:
    """Indices, in order, of a share of the samples that have labels: of each class alike, as near as whole samples
    allow, and never the last sample of one; of targets and of several classes a sample without regard to their values.
    A function of labels, share and seed alone.

    >>> draw_share(np.array([0] * 6 + [1] * 4), "classification", 0.5, seed=0).tolist()
    [1, 3, 5, 6, 7]
    """
    strata = _strata(labels, task)
    order = np.random.Generator(np.random.Philox(key=[seed, len(labels)])).permutation(len(labels))
    order = order[strata[order] >= 0]
    found, counts = np.unique(strata[order], return_counts=True)
    exact = share * counts
    taken = np.floor(exact).astype(np.int64)
    most = np.maximum(counts - 1, 0) if len(found) > 1 else counts
    for index in np.lexsort((found, taken - exact)):  # those that lost most by rounding down, first
        if taken.sum() < round(share * len(order)):
            taken[index] += 1
    taken = np.minimum(taken, most)
    chosen = [order[strata[order] == stratum][:count] for stratum, count in zip(found, taken, strict=True)]
    return np.sort(np.concatenate([*chosen, np.empty(0, np.int64)]).astype(np.int64))


def require_labels(validation: LabelledData) -> None:
    """Raises DataError where nothing can be chosen by these data."""
    if not has_labels(validation):
        raise DataError(
            f"{validation.name}: no sample of the validation part has a label, so nothing can be chosen by it"
        )


def _strata(labels: NDArray[np.generic], task: Task) -> NDArray[np.int64]:
    """(N,) the class of each sample, 0 where there are no classes; −1 where there is no label."""
    if task == "classification":
        return np.where(labels == NO_LABEL, -1, labels).astype(np.int64)
    known = ~np.isnan(labels).all(axis=1)
    if task == "binary":
        return np.where(known, np.nan_to_num(labels[:, 0]), -1).astype(np.int64)
    return np.where(known, 0, -1).astype(np.int64)


def _some_of(train: LabelledData, split: str, indices: NDArray[np.int64]) -> LabelledData:
    """Some samples of the training part; of an array a copy, so that a device can hold it."""
    part = SomeOf(train, split, indices, train.labels[indices], train.classes)
    if type(train) is not ArrayData:
        return part
    return ArrayData(
        part.name,
        split,
        train.inputs[indices],
        part.labels,
        part.classes,
        content=part.digest(),
        decoding=part.decoding,
        task=part.task,
    )
