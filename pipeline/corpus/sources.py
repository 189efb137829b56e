"""Where documents come from: .txt, .jsonl and Parquet files, folders of them, datasets on disk, and rows in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from decant.cache.io.opening import open_read, read_file, require_file
from decant.pipeline.corpus.documents import Column, Document, as_document
from decant.pipeline.errors import DataError
from decant.pipeline.support.checked_json import parse
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.plugins import in_words, optional

Source: TypeAlias = str | os.PathLike[str] | Iterable[Any]
"""A file or folder, several of them, or rows that can be iterated over more than once, as of a list or a dataset."""

ENDINGS = (".txt", ".jsonl", ".parquet")
_LARGEST_TEXT = 8 << 30
_ROWS_OF_TABLES = {"to_pylist": (), "to_dicts": (), "to_dict": ("records",)}
"""By which method tables of Arrow, polars and pandas give their rows, with what arguments."""
_TOGETHER = 1000  # rows of a dataset that are read in one call


def read_documents(
    source: Source, column: Column = None, separator: str | None = None
) -> Iterator[tuple[str, Document]]:
    """Each document, and before it what messages call it: `FILE: row 3`.

    Files of a folder come in the order of their names, with those of the folders in it. separator: what stands between
    the documents of a .txt file, as "\\n\\n"; None takes a file as one. Raises DataError.

    >>> [document.text for _, document in read_documents(["a text", {"text": "another"}])]
    ['a text', 'another']
    """
    if separator == "":
        raise DataError("separator: expected a text between documents, or None, found an empty one")
    rows = _rows(_of_table(source), separator)
    for where, row in rows:
        yield where, as_document(row, where, column)


def _of_table(source: Source) -> Source:
    """The rows of a table of pandas, polars or Arrow, which would be read column by column; another source as it is."""
    if not hasattr(source, "columns"):
        return source
    for method, words in _ROWS_OF_TABLES.items():
        if callable(getattr(source, method, None)):
            rows: list[Any] = getattr(source, method)(*words)
            return rows
    return source


def _rows(source: Source, separator: str | None) -> Iterator[tuple[str, Any]]:
    if isinstance(source, str | os.PathLike):
        yield from _of_path(Path(source), separator)
    elif _are_paths(source):
        for path in source:
            yield from _of_path(Path(path), separator)
    elif isinstance(source, Iterator) or not isinstance(source, Iterable):
        raise DataError(
            f"texts: a {type(source).__name__} can be read once at most, and texts are read twice; give a list, a "
            "dataset, or files"
        )
    elif isinstance(source, Mapping):
        raise DataError(f"texts: has the parts {', '.join(map(str, source))}; give one of them")
    elif isinstance(source, StoredRows) or _is_stored(source):
        stored = source if isinstance(source, StoredRows) else StoredRows(source, "texts")
        for number, row in enumerate(stored, start=1):
            yield f"{stored.name}: row {number:,}", row
    else:
        for number, row in enumerate(source, start=1):
            if isinstance(row, str) and row.endswith(ENDINGS) and "\n" not in row and os.path.exists(row):
                raise DataError(
                    f"texts: row {number:,}: {row!r} is the name of a file; give pathlib.Path({row!r})"
                )
            yield f"texts: row {number:,}", row


@dataclass(frozen=True)
class StoredRows:
    """The rows of a dataset of the library `datasets` as they are stored: no image or sound of another column is
    decoded, and no format that was set is used.
    """

    dataset: Any
    name: str
    """What messages call it."""

    def __iter__(self) -> Iterator[Any]:
        rows = self.dataset.with_format("arrow")
        for start in range(0, len(rows), _TOGETHER):
            yield from rows[start : start + _TOGETHER].to_pylist()


def _is_stored(source: Any) -> bool:
    """Whether it is a dataset of the library `datasets` whose rows are neither changed nor cut when
    they are read."""
    form = getattr(source, "format", None)
    if not isinstance(form, Mapping) or "type" not in form or form["type"] is not None:
        return False
    return form.get("columns") == getattr(source, "column_names", None)


def _are_paths(source: Any) -> bool:
    """Whether these are files. Texts in memory may be names of files by accident."""
    return (
        isinstance(source, Sequence)
        and not isinstance(source, str)
        and len(source) > 0
        and all(isinstance(each, os.PathLike) for each in source)
    )


def _of_path(path: Path, separator: str | None) -> Iterator[tuple[str, Any]]:
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            parts = sorted(found.parent.name for found in path.glob("*/state.json"))
            one = f"; name one, as {path / ('train' if 'train' in parts else parts[0])}" if parts else ""
            raise DataError(f"{path}: has the parts {', '.join(parts) or 'none'}{one}")
        yield from _saved_dataset(path) if (path / "state.json").is_file() else _folder(path, separator)
        return
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix not in ENDINGS:
        raise DataError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}, or a folder")
    try:
        if path.suffix == ".txt":
            yield from _text_file(path, separator)
        else:
            yield from (_json_lines if path.suffix == ".jsonl" else _parquet)(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _folder(folder: Path, separator: str | None) -> Iterator[tuple[str, Any]]:
    names = _files_below(folder)
    taken = [path for path in names if path.suffix in ENDINGS and not _is_hidden(path.relative_to(folder))]
    if not taken:
        raise DataError(f"{folder}: has no file that ends in {', '.join(ENDINGS)}")
    if len(taken) < len(names):
        other = next(path for path in names if path not in taken)
        count = len(names) - len(taken)
        say_once(
            f"{folder}: {count:,} {'file is' if count == 1 else 'files are'} left out, as {other.relative_to(folder)}: "
            f"{', '.join(ENDINGS)} are read"
        )
    for path in taken:
        yield from _of_path(path, separator)


def _files_below(folder: Path) -> list[Path]:
    """All files, in order. Raises DataError for a folder that may not be read, whose texts would be missing unsaid."""

    def refuse(error: OSError) -> None:
        if not _is_hidden(Path(error.filename).relative_to(folder)):
            raise DataError(f"{error.filename}: cannot be read: {error.strerror or error}")

    return sorted(Path(where, name) for where, _, names in os.walk(folder, onerror=refuse) for name in names)


def _is_hidden(path: Path) -> bool:
    """Whether a file, or a folder that it is in, is hidden, as what git and downloads keep."""
    return any(name.startswith(".") for name in path.parts)


def _text_file(path: Path, separator: str | None) -> Iterator[tuple[str, Any]]:
    content = _decoded(read_file(path, most=_LARGEST_TEXT), str(path)).removeprefix("\ufeff")
    content = content.replace("\r\n", "\n")
    if separator is None:
        yield str(path), content
        return
    for number, text in enumerate(content.split(separator), start=1):
        yield f"{path}: text {number:,}", text


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open_read(path) as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}: line {number:,}"
            text = _decoded(line, where).removeprefix("\ufeff") if number == 1 else _decoded(line, where)
            if not text.strip():
                continue
            try:
                row = parse(text)
            except ValueError as error:
                raise DataError(f"{where}: not JSON ({error}){_hint(text)}") from None
            if isinstance(row, list):
                raise DataError(f"{where}: expected a row, found a list{_hint(text)}")
            yield where, row


def _hint(text: str) -> str:
    """What to do with a file that is a list of all rows."""
    return (
        "; a .jsonl file has a row a line, as jq -c '.[]' FILE writes them"
        if text.lstrip()[:1] == "["
        else ""
    )


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{where}: is UTF-16; convert it, as iconv -f UTF-16 -t UTF-8 does") from None
        line = content.count(b"\n", 0, error.start) + 1
        at = f"line {line:,}, " if b"\n" in content.rstrip(b"\n") else ""
        raise DataError(
            f"{where}: {at}byte {error.start:,} (0x{content[error.start]:02x}) is not UTF-8; convert it, as "
            "iconv -f LATIN1 -t UTF-8 does"
        ) from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    optional("pyarrow", "parquet", DataError)
    import pyarrow
    from pyarrow import parquet

    require_file(path)  # a pipe would be waited for
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}: row {number:,}", row
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())[:200]})") from None


def _saved_dataset(folder: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a dataset that `save_to_disk` of the library `datasets` wrote."""
    optional("datasets", "datasets", DataError)
    from datasets import load_from_disk

    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            require_file(path)  # the library would wait for a pipe
    try:
        for number, row in enumerate(StoredRows(load_from_disk(str(folder)), str(folder)), start=1):
            yield f"{folder}: row {number:,}", row
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder}: cannot be loaded ({in_words(error)})") from error
