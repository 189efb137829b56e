"""A dataset by name → `LabelledData`, checked, with what identifies it."""

from __future__ import annotations

from typing import Any

from decant.cache import class_list
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.builtin import DATASETS, Source
from decant.pipeline.data.external import from_function
from decant.pipeline.data.image_folder import image_folder, listed_images
from decant.pipeline.data.labels import check_labels
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.data.text import text_folder
from decant.pipeline.errors import DataError, nearest

_SOURCES: dict[str, Source] = {**DATASETS, "imagefolder": image_folder, "text": text_folder}


def load(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """The `split` part of a dataset, every image brought to `views.size` where that is given.

    Names: digits; diabetes; cifar10, cifar100, mnist, fashion-mnist, svhn (downloaded to `root` when absent);
    imagefolder; text; `package.module:function`. Raises DataError, worded for a person.
    """
    if ":" in settings.name:
        data = from_function(settings, views, split)
    elif settings.name in _SOURCES:
        data = _SOURCES[settings.name](settings, views, split)
    else:
        raise DataError(
            f"unknown dataset {settings.name!r}; {nearest(settings.name, _SOURCES)} (or package.module:function)"
        )
    _check(data)
    return data


def describe(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """The same data, for those who ask for labels, shape and digest alone: no image file is decoded but the first, and
    nothing is written.
    """
    if settings.name != "imagefolder":
        return load(settings, views, split)
    data = listed_images(settings, views, split)
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
    check_labels(data)
