"""The columns of an imported table of logits: those of the data's classes, where it has more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from decant.cache.io.opening import read_text
from decant.pipeline.data.kept_classes import kept_columns
from decant.pipeline.data.samples import LabelledData, num_outputs, num_targets, task_of
from decant.pipeline.errors import DataError


def choose_columns(
    table: NDArray[Any], chosen: str | None, names_file: str | None, data: LabelledData | None
) -> tuple[NDArray[Any], list[int] | None]:
    """The columns of a table (…, C) that `chosen` names (`"2,5,9"`, names, or a JSON list), or those of the data's
    own class names, and their numbers; the whole table and None where all are kept.

    `names_file` has the name of each column. Raises DataError where columns are not there, or the table has another
    number of them than the data have outputs, or another number of rows than samples.

    >>> import numpy as np
    >>> choose_columns(np.array([[0.0, 1.0, 2.0]]), "2,0", None, None)
    (array([[2., 0.]]), [2, 0])
    """
    _check_rows(table, data)
    outputs, names = (
        table.shape[-1] if table.ndim else 0,
        None if names_file is None else _read_names(names_file),
    )
    if names is not None and len(names) != outputs:
        raise DataError(f"{names_file}: has {len(names):,} names, the table {outputs:,} columns")
    wanted: list[int | str] | None = None if chosen is None else _parse(chosen)
    if wanted is None and names is not None and data is not None:
        wanted = list(data.classes)
    if wanted is None:
        _check_count(table, data)
        return table, None
    if data is not None and (task := task_of(data)) in ("regression", "binary"):
        raise DataError(f"--classes: keeps classes, and {data.name} is a {task}; leave it out")
    columns = kept_columns(
        wanted,
        outputs,
        names,
        None if data is None else num_outputs(data),
        () if data is None else data.classes,
        "--classes",
    )
    return table[..., columns], columns


def _check_rows(table: NDArray[Any], data: LabelledData | None) -> None:
    """Raises DataError where the table has another number of rows than the data have samples."""
    if data is not None and table.ndim in (2, 3) and table.shape[-2] != len(data):
        raise DataError(f"logits: {table.shape[-2]:,} rows, and the data have {len(data):,} samples")


def _parse(text: str) -> list[int | str]:
    """Column numbers, or names; in a JSON list, names may be digits too."""
    try:
        items: Any = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        raise DataError(f"--classes: expected 2,5,9 or names or a JSON list, found {text!r}") from None
    if items is None:
        words = [word.strip() for word in text.split(",")]
        items = [int(word) for word in words] if all(word.isdecimal() for word in words) else words
    if not items or not all(type(item) in (int, str) and item != "" for item in items):
        raise DataError(f"--classes: expected a number or name for each class, found {text!r}")
    chosen: list[int | str] = items
    return chosen


def _read_names(path: str) -> list[str]:
    try:
        text = read_text(Path(path), "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path}: cannot be read: {reason}") from None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    return [line.strip() for line in text.splitlines() if line.strip()]


def _check_count(table: NDArray[Any], data: LabelledData | None) -> None:
    """Raises DataError where the table has another number of columns than the data have outputs."""
    if data is None or table.ndim not in (2, 3) or table.shape[-1] == num_outputs(data):
        return
    more = num_targets(data) is None and table.shape[-1] > num_outputs(data)
    keep = "; keep those of the data with --classes" if more else ""
    raise DataError(
        f"logits: {table.shape[-1]:,} columns, and the data have {num_outputs(data):,} outputs{keep}"
    )
