"""Parquet files, `parquet`: a column of images, as the bytes of image files, and one of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.columns import pick_columns
from decant.pipeline.data.external import from_dataset
from decant.pipeline.data.image_decode import decode_bytes
from decant.pipeline.data.part_files import find_files
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional


def parquet(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`root/train.parquet` or `root/train-….parquet`, and the same of `test` (or `val`, …), in the order of names and
    rows.

    The images are a column of bytes, or of `{bytes, path}` as `datasets` writes them; labels are integers, or names of
    classes, whose order is that of the alphabet, or of the schema where `datasets` has written that. Both columns are
    held in memory as they are stored. Raises DataError where pyarrow is not installed, a file is none of Parquet,
    or columns cannot be told.
    """
    optional("pyarrow", "parquet", DataError)
    rows = _Rows(find_files(settings, split, ".parquet"), settings, views)
    return from_dataset(
        rows, _names(settings, rows, split), settings.model_copy(update={"keys": None}), views, split
    )


def _names(settings: DataSettings, rows: _Rows, split: Split) -> tuple[str, ...]:
    """The names of the classes: of the schema, or the labels of the training part, where those are texts."""
    if rows.names or not any(isinstance(label, str) for label in rows.targets):
        return rows.names
    if split != "train":
        rows = _Rows(find_files(settings, "train", ".parquet"), settings, rows.views)
    return tuple(sorted({label for label in rows.targets if isinstance(label, str)}))


class _Rows:
    """(image, label) of each row."""

    def __init__(self, paths: list[Path], settings: DataSettings, views: ViewsSettings) -> None:
        import pyarrow
        from pyarrow import parquet

        self.views, self.path = views, paths[0]
        try:
            schema = parquet.read_schema(paths[0])
            bytes_in = {name: _holds_bytes(schema.field(name).type) for name in schema.names}
            images = [name for name, found in bytes_in.items() if found]
            value, label = pick_columns(str(paths[0]), schema.names, images, [], settings.keys)
            if not bytes_in[value]:
                raise DataError(
                    f"{paths[0]}: column {value}: is of {schema.field(value).type}, and images are columns of bytes, "
                    "or of {bytes, path}"
                )
            table = pyarrow.concat_tables(
                [parquet.read_table(path, columns=[value, label]) for path in paths]
            )
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"{paths[0]}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})"
            ) from None
        self._images, self.targets = table.column(value), table.column(label).to_pylist()
        self.names = _class_names(schema, label)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        value = self._images[index].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        where = f"{self.path.parent}: row {index:,}"
        if content is None:
            raise DataError(f"{where}: has no bytes of an image; files beside the table are not opened")
        return decode_bytes(content, where, self.views), self.targets[index]


def _holds_bytes(kind: Any) -> bool:
    """Whether a column is of bytes, or of {bytes, path}."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class_names(schema: Any, label: str) -> tuple[str, ...]:
    """The names of a column of labels that `datasets` has written into the schema; empty where it has not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()
