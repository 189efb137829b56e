"""A dataset by name → `LabelledData`, checked, with what identifies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cache.manifest import class_list
from pipeline import sources
from pipeline.errors import DataError, nearest
from pipeline.folders import image_folder
from pipeline.samples import NO_LABEL, LabelledData, Split
from pipeline.settings import DataSettings, ViewsSettings


def load(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """The `split` part of a dataset, every image brought to `views.size` where that is given.

    Names: digits; cifar10, cifar100, mnist, fashion-mnist, svhn (downloaded to `root` when absent);
    imagefolder; `package.module:function`. Raises DataError, worded for a person.
    """
    known: dict[str, Callable[[DataSettings, ViewsSettings, Split], LabelledData]] = {
        "digits": sources.digits,
        "imagefolder": image_folder,
        **dict.fromkeys(sources.TORCHVISION, sources.from_torchvision),
    }
    if ":" in settings.name:
        data = sources.from_function(settings, views, split)
    elif settings.name in known:
        data = known[settings.name](settings, views, split)
    else:
        raise DataError(
            f"unknown dataset {settings.name!r}; {nearest(settings.name, known)} (or package.module:function)"
        )
    _check(data)
    return data


def identity(data: LabelledData) -> dict[str, Any]:
    """What a cache of these data says of them, beside their length."""
    return {
        "name": data.name,
        "split": data.split,
        "classes": class_list(data.classes),
        "sha256": data.digest(),
    }


def _check(data: LabelledData) -> None:
    if not len(data):
        raise DataError(f"{data.name}: {data.split}: no samples")
    if data.labels.shape != (len(data),) or data.labels.dtype != np.int64:
        raise DataError(
            f"{data.name}: {data.split}: labels must be ({len(data)},) integers, found {data.labels.shape}"
        )
    if data.classes and data.labels.max() >= len(data.classes):
        raise DataError(
            f"{data.name}: {data.split}: label {data.labels.max()} of {len(data.classes)} classes; "
            "labels count from 0"
        )
    if data.labels.min() < NO_LABEL:
        raise DataError(
            f"{data.name}: {data.split}: label {data.labels.min()}; labels count from 0, −1 is none"
        )
