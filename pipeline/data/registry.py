"""A dataset by name → `LabelledData`, checked, and its identity."""

from __future__ import annotations

from typing import Any

from decant.cache import class_list
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.array_folder import array_folder
from decant.pipeline.data.builtin import DATASETS, Source
from decant.pipeline.data.doubts import check_classes
from decant.pipeline.data.external import from_function
from decant.pipeline.data.hub_parts import is_hugging_face
from decant.pipeline.data.hugging_face import hugging_face
from decant.pipeline.data.image_folder import image_folder, listed_images
from decant.pipeline.data.labels import check_labels
from decant.pipeline.data.parquet import parquet
from decant.pipeline.data.samples import LabelledData, Split, WhenDecoded, decoding, has_sigmoids, task_of
from decant.pipeline.data.sigmoid_labels import apply_task
from decant.pipeline.data.tar_shards import tar_shards
from decant.pipeline.data.text import text_folder
from decant.pipeline.errors import DataError, nearest

_SOURCES: dict[str, Source] = {
    **DATASETS,
    "imagefolder": image_folder,
    "text": text_folder,
    "webdataset": tar_shards,
    "parquet": parquet,
    "npy": array_folder,
    "hf": hugging_face,
}


def load_data(
    settings: DataSettings, views: ViewsSettings, split: Split, *, decode: WhenDecoded = "at once"
) -> LabelledData:
    """The `split` part of a dataset, every image brought to `views.size` where that is given. decode: when image
    files are decoded.

    Names: digits; diabetes; cifar10, cifar100, mnist, fashion-mnist, svhn (downloaded to `root` when absent);
    imagefolder; text; webdataset; parquet; npy; hf, `hf:NAME`; `package.module:function`. Raises DataError.

    >>> from decant.pipeline.config.settings import DataSettings, ViewsSettings
    >>> train = load_data(DataSettings(name="digits"), ViewsSettings(), "train")
    >>> len(train), train.input_shape, train.classes[:3]
    (1437, (1, 8, 8), ('0', '1', '2'))

    """
    if is_hugging_face(settings.name):
        data = hugging_face(settings, views, split)
    elif ":" in settings.name:
        data = from_function(settings, views, split)
    elif settings.name == "imagefolder":
        data = image_folder(settings, views, split, decode=decode)
    elif settings.name in _SOURCES:
        data = _SOURCES[settings.name](settings, views, split)
    else:
        raise DataError(
            f"unknown dataset {settings.name!r}; {nearest(settings.name, _SOURCES)} (or package.module:function)"
        )
    apply_task(data, settings.task)
    _check(data)
    return data


def describe_data(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """The same data where only labels, shape and digest are needed: of image files only the first is decoded, and
    nothing is written.
    """
    if settings.name != "imagefolder":
        return load_data(settings, views, split)
    data = listed_images(settings, views, split)
    apply_task(data, settings.task)
    _check(data)
    return data


def identity(data: LabelledData) -> dict[str, Any]:
    """What the manifest of a cache holds of the data, beside their length. Of image files the version of their decoder
    belongs to it, as their digest is not of pixels.
    """
    version = decoding(data)
    return {
        "name": data.name,
        "split": data.split,
        "classes": class_list(data.classes),
        "sha256": data.digest(),
        **({} if version is None else {"image_decoder": version}),
        **({"task": task_of(data)} if has_sigmoids(data) else {}),
    }


def _check(data: LabelledData) -> None:
    if not len(data):
        raise DataError(f"{data.name}: {data.split}: no samples")
    check_labels(data)
    if data.split == "train":
        check_classes(data)
