"""Datasets of the library `datasets`: of the hub, `hf:NAME`, or written by `save_to_disk`, `hf`.

The samples are in the order of the dataset, and what was selected or filtered before it was saved is what is read.
Their digest is of their content, as that of any dataset of the user's.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from decant.cache.io.opening import open_read, require_file
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.columns import pick_columns
from decant.pipeline.data.external import from_dataset
from decant.pipeline.data.hub_parts import NAME, load_parts, named
from decant.pipeline.data.image_decode import open_image
from decant.pipeline.data.part_names import listed, part_names, say_unused
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional

_ARRAYS = ("Array2D", "Array3D", "Array4D", "Sequence", "List", "LargeList")


def hugging_face(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """A part of a dataset of `datasets`. Columns are those of `data.keys`, or the one of images and the one of labels.

    Raises DataError where `datasets` is not installed, where there is no such dataset or part, and where columns cannot
    be told.
    """
    optional("datasets", "datasets", DataError)
    dataset = (_saved if settings.name == NAME else _of_hub)(settings, split)
    where = f"{settings.name}: {split}"
    kinds = {name: type(feature).__name__ for name, feature in dataset.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    value, label = pick_columns(where, list(kinds), images, labels, settings.keys)
    feature = dataset.features[value]
    if kinds[value] not in ("Image", *_ARRAYS):
        raise DataError(
            f"{where}: column {value}: is of {getattr(feature, 'dtype', kinds[value])}, and images or arrays are read; "
            'of texts write a file, Dataset.to_csv("texts/train.csv"), for data.name = "text"'
        )
    names = getattr(dataset.features[label], "names", None)
    pairs = settings.model_copy(update={"keys": None})
    rows = _Rows(dataset, value, label, where)
    return from_dataset(rows, () if names is None else tuple(map(str, names)), pairs, views, split)


class _Rows:
    """(input, label) of each row of a dataset, as it is stored: the library decodes nothing, as it would open images of
    any format that Pillow knows, one of which a program interprets, and fetch those that are addresses.
    """

    def __init__(self, dataset: Any, value: str, label: str, where: str) -> None:
        self._stored = dataset.select_columns([value, label]).with_format("arrow")
        self._value, self._label, self._where = value, label, where
        feature = dataset.features[value]
        self._is_image, self._mode = type(feature).__name__ == "Image", getattr(feature, "mode", None)
        self._dtype = _dtype_of(feature)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        row = self._stored[index].to_pylist()[0]
        value = row[self._value]
        if self._is_image:
            value = self._image(value, index)
        return (np.asarray(value, self._dtype) if isinstance(value, list) else value), row[self._label]

    @property
    def targets(self) -> list[Any]:
        """The labels alone."""
        labels = self._stored.select_columns([self._label])[:]
        return list(labels.column(self._label).to_pylist())

    def _image(self, stored: Any, index: int) -> Any:
        """The image of a row, decoded: of its bytes, or of the file on this disk that it names."""
        where = f"{self._where}: row {index:,}"
        content, path = (stored or {}).get("bytes"), (stored or {}).get("path")
        if content is not None:
            image = open_image(lambda: io.BytesIO(content), where)
        elif path and Path(path).exists():
            image = open_image(lambda: open_read(Path(path)), path)
        else:
            raise DataError(
                f"{where}: has no bytes of an image, and names no file on this disk; nothing is fetched"
            )
        return image if self._mode in (None, image.mode) else image.convert(self._mode)


def _dtype_of(feature: Any) -> str:
    """uint8 where a feature of lists says so, else float32."""
    while getattr(feature, "dtype", "list") == "list" and hasattr(feature, "feature"):
        feature = feature.feature
    return "uint8" if getattr(feature, "dtype", None) == "uint8" else "float32"


def _saved(settings: DataSettings, split: Split) -> Any:
    """The part that `save_to_disk` wrote into `root/PART`, as it does of a `DatasetDict`."""
    from datasets import load_from_disk

    root = Path(settings.root)
    if not root.is_dir():
        raise DataError(f"data.root: no such folder: {root}")
    if (root / "state.json").is_file():
        raise DataError(
            f"{root}: is one dataset without parts: save a DatasetDict of train and test, as "
            "dataset.train_test_split(0.1).save_to_disk(…) does"
        )
    names = part_names(settings, split)
    there = [name for name in names if (root / name / "state.json").is_file()]
    if not there:
        found = sorted(path.parent.name for path in root.glob("*/state.json"))
        raise DataError(
            f"{root}: has no part {' or '.join(names)} that save_to_disk wrote; it has {listed(found) or 'none'}"
        )
    say_unused(root, there)
    with named(f"{root / there[0]}"):
        for path in sorted((root / there[0]).iterdir()):
            if not path.is_dir():
                require_file(path)  # the library would wait for a pipe
        return load_from_disk(str(root / there[0]))


def _of_hub(settings: DataSettings, split: Split) -> Any:
    """The part of a dataset of the hub, or of a folder that `datasets` reads."""
    parts = load_parts(settings.name)
    names = part_names(settings, split)
    there = [part for part in names if part in parts]
    if not there:
        raise DataError(
            f"{settings.name}: has no part {' or '.join(names)}; it has {listed(parts)}"
            f"{f' (data.test = {next(iter(parts))!r} and the like)' if split == 'test' else ''}"
        )
    return parts[there[0]]
