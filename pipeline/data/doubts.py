"""Data that are likely not what their user means: what is certainly wrong is refused, what is doubtful is said once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.data.samples import NO_LABEL, LabelledData, has_sigmoids, num_classes, task_of
from decant.pipeline.data.spelling import written_alike
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

_MOST_NAMED = 5
_MOST_CLASSES, _CLASSES_A_SAMPLE = 1_000, 10
"""Without class names, more classes than both of these allow are no classes but other numbers."""


def check_classes(data: LabelledData) -> None:
    """Raises DataError where all labels of a training part are of one class; says once which classes have no sample,
    and which two have one name in two spellings. One pass over the labels.
    """
    if (alike := written_alike(data.classes)) is not None:
        say_once(
            f"warning: {data.name}: {data.split}: the classes {alike[0]!a} and {alike[1]!a} differ in capitals, spaces "
            "or forms of Unicode alone: where one is meant, give all its samples one name"
        )
    if has_sigmoids(data):
        _check_answers(data)
    if task_of(data) != "classification":
        return
    present = np.unique(data.labels[data.labels != NO_LABEL])
    if not len(present):
        return
    where = f"{data.name}: {data.split}"
    if len(present) == 1:
        raise DataError(
            f"{where}: every label is {_named(data, int(present[0]))}; with one class there is nothing to learn"
        )
    if not data.classes and present[-1] >= max(_MOST_CLASSES, _CLASSES_A_SAMPLE * len(data)):
        raise DataError(
            f"{where}: labels go up to {present[-1]:,}, of {len(present):,} different ones in {len(data):,} samples; "
            "number the classes from 0, give None where there is no label, or give the dataset `classes` where this is "
            "meant"
        )
    missing = np.setdiff1d(np.arange(num_classes(data)), present)
    if not len(missing):
        return
    names = ", ".join(_named(data, label) for label in missing[:_MOST_NAMED].tolist())
    more = f", … ({len(missing):,} classes)" if len(missing) > _MOST_NAMED else ""
    if missing.tolist() == [0] and not data.classes:
        say_once(
            f"warning: {where}: labels go from 1 to {present[-1]}, and count from 0: class 0 has no sample; "
            "subtract 1, or give the dataset `classes` where this is meant"
        )
    elif data.classes:
        say_once(f"warning: {where}: no sample of class {names}{more}, of {num_classes(data):,} classes")
    else:
        say_once(
            f"warning: {where}: labels go from {present[0]} to {present[-1]}, and none is {names}{more}; number the "
            "classes from 0 without gaps, or give the dataset `classes` where this is meant"
        )


def _check_answers(data: LabelledData) -> None:
    """The same of labels that are 0 and 1: a class that every sample has or none has cannot be learnt."""
    where, names = f"{data.name}: {data.split}", data.classes or tuple(map(str, range(data.labels.shape[1])))
    known = ~np.isnan(data.labels)
    always = ((data.labels == 1) | ~known).all(axis=0) & known.any(axis=0)
    never = ((data.labels == 0) | ~known).all(axis=0) & known.any(axis=0)
    if (always | never).all():
        raise DataError(f"{where}: every label is the same for all samples; there is nothing to learn")
    for which, word in ((always, "every sample has"), (never, "no sample has")):
        found = [names[k] for k in np.flatnonzero(which)[:_MOST_NAMED]]
        if found:
            say_once(
                f"warning: {where}: {word} {', '.join(found)}{', …' if which.sum() > len(found) else ''}"
            )


def check_inputs(inputs: NDArray[np.generic], indices: NDArray[np.int64], name: str, split: str) -> None:
    """Says once what is doubtful about the values of some inputs (B, …), of the samples at `indices` of a part. Raises
    DataError where a float is not finite.
    """
    if inputs.dtype == np.float32:
        wrong = np.flatnonzero(~np.isfinite(inputs.reshape(len(inputs), -1)).all(axis=1))
        if len(wrong):
            raise DataError(f"{name}: {split}: sample {indices[wrong[0]]}: its input has NaN or infinity")
    if inputs.ndim != 4:
        return
    low, high = float(inputs.min()), float(inputs.max())
    if inputs.dtype == np.uint8 and high <= 1:
        say_once(
            f"warning: {name}: {split}: no pixel is above {high:g}, and uint8 images go to 255: were floats of 0 to "
            "1 cast? Give them as floats, or times 255",
            about=f"range of {name}",
        )
    if inputs.dtype == np.float32 and low >= 0 and 2 < high <= 255:
        say_once(
            f"warning: {name}: {split}: float images of values from {low:g} to {high:g}, which seem to be pixels of "
            "0 to 255; give them as uint8, which augmentation and pretrained networks expect",
            about=f"range of {name}",
        )


def _named(data: LabelledData, label: int) -> str:
    """A class in a message: its number, with its name where it has one."""
    return f"{label} ({data.classes[label]})" if data.classes else str(label)
