"""Texts of a folder, tokenised once: each sample is the token ids of one text, padded to the longest of its batch."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.opening import open_read
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.corpus.tokenizer import load_tokenizer
from decant.pipeline.data.part_names import part_names, say_unused
from decant.pipeline.data.samples import MAX_CLASSES, NO_LABEL, LabelledData, Split
from decant.pipeline.data.text_pack import tokenise
from decant.pipeline.errors import DataError
from decant.pipeline.support.checked_json import parse

MAX_LENGTH = 128  # tokens of a text, unless the recipe says otherwise
_ENDINGS = (".csv", ".tsv", ".jsonl")


@dataclass
class TextData:
    """Token ids, one text after the other."""

    name: str
    split: Split
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    """(N + 1,): text i is ids[starts[i] : starts[i + 1]]."""
    labels: NDArray[Any]
    classes: tuple[str, ...]
    vocabulary: int
    """How many tokens there are."""
    max_length: int
    padding: int
    """The token that texts shorter than the longest of their batch are padded with."""
    task: Task | None = None

    lazy = False

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(L,): the largest number of tokens."""
        return (self.max_length,)

    def raw(self, indices: NDArray[np.integer]) -> dict[str, NDArray[np.int64]]:
        """`input_ids` and `attention_mask` (1 for a token, 0 for padding), both (B, longest)."""
        starts = self.starts[:-1][indices]
        lengths = self.starts[1:][indices] - starts
        positions = np.arange(lengths.max(initial=1))
        mask = positions < lengths[:, None]
        ids = np.full(mask.shape, self.padding, np.int64)
        ids[mask] = self.ids[(starts[:, None] + positions)[mask]]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64)}

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        """Of the tokens of each text, the labels, the classes and the size of the vocabulary."""
        described = json.dumps([len(self), self.vocabulary, list(self.classes)])
        digest = hashlib.sha256(described.encode())
        for column in (self.ids.astype("<i4"), self.starts.astype("<i8"), self.labels):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


class Row(NamedTuple):
    """A text with its label as it is written; None where there is none."""

    text: str
    label: str | int | None


def text_folder(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`root/train` and `root/test` (or `val`, `valid`, `validation`) with the ending .csv, .tsv or .jsonl, each row a
    `text` and a `label`.

    Labels are integers from 0, or names, whose order is that of the alphabet; both parts have those of the training
    part. An empty label is none. Raises DataError, naming file and row.
    """
    root = Path(settings.root)
    train = _find(root, ("train",))
    path = train if split == "train" else _find(root, part_names(settings, split))
    rows = list(_read(path))
    if not rows:
        raise DataError(f"{path}: no rows")
    classes = _classes(rows if split == "train" else list(_read(train)), train)
    tokenizer = load_tokenizer(str(settings.tokenizer), "data.tokenizer")
    max_length = settings.max_length or MAX_LENGTH
    ids, starts = tokenise([row.text for row in rows], tokenizer, max_length, split, settings.pack)
    return TextData(
        name=settings.name,
        split=split,
        ids=ids,
        starts=starts,
        labels=_labels(rows, classes, path),
        classes=classes,
        vocabulary=len(tokenizer),
        max_length=max_length,
        padding=tokenizer.pad_token_id or 0,
    )


def decoder(settings: DataSettings) -> Callable[[Sequence[int]], str]:
    """Token ids → text, without the special tokens. Raises DataError."""
    tokenizer = load_tokenizer(str(settings.tokenizer), "data.tokenizer")
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))


def _find(root: Path, names: Sequence[str]) -> Path:
    """The file of a part; of several that could be the test part the first, which is said. Raises DataError."""
    there = {}
    for name in names:
        path = next((path for ending in _ENDINGS if (path := root / f"{name}{ending}").is_file()), None)
        if path is not None:
            there[name] = path
    if there:
        say_unused(root, list(there))
        return next(iter(there.values()))
    wanted = [f"{names[0]}{ending}" for ending in _ENDINGS] if len(names) == 1 else [*names]
    ending = "" if len(names) == 1 else " with the ending .csv, .tsv or .jsonl"
    raise DataError(
        f"{root}: no {', '.join(wanted[:-1])} or {wanted[-1]}{ending}; set data.root to the folder that has one"
    )


def _read(path: Path) -> Iterator[Row]:
    """The rows of a file. Raises DataError, naming the row, counted from 1 without a header."""
    try:
        with io.TextIOWrapper(open_read(path), encoding="utf-8-sig", newline="") as file:
            rows: Iterable[Any] = (
                (parse(line) for line in file if line.strip())
                if path.suffix == ".jsonl"
                else csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            )
            for number, row in enumerate(rows, start=1):
                yield _row(row, f"{path}: row {number}")
    except (OSError, ValueError, csv.Error) as error:  # not text, not JSON, or numbers that are no labels
        raise DataError(f"{path}: cannot be read: {error}") from None


def _row(row: Any, where: str) -> Row:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "label" not in row:
        found = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{where}: expected the columns text and label, found {found}")
    label = row["label"]
    if isinstance(label, bool) or not isinstance(label, str | int | None):
        raise DataError(f"{where}: label {label!r}: expected a name, an integer, or nothing")
    return Row(row["text"], None if label == "" else label)


def _classes(rows: Sequence[Row], path: Path) -> tuple[str, ...]:
    """Names by label: the written ones in the order of the alphabet, or the integers up to the largest."""
    labels = {row.label for row in rows if row.label is not None}
    if not labels:
        raise DataError(f"{path}: no row has a label")
    if all(_is_integer(label) for label in labels):
        largest = max(map(int, labels))
        if largest >= MAX_CLASSES:
            raise DataError(
                f"{path}: label {largest}: at most {MAX_CLASSES:,} classes, counted from 0, are taken"
            )
        return tuple(map(str, range(largest + 1)))
    return tuple(sorted(map(str, labels)))


def _labels(rows: Sequence[Row], classes: Sequence[str], path: Path) -> NDArray[np.int64]:
    index_of = {name: index for index, name in enumerate(classes)}
    numbered = all(map(_is_integer, classes))
    labels = np.full(len(rows), NO_LABEL)
    for number, row in enumerate(rows, start=1):
        if row.label is None:
            continue
        name = str(int(row.label)) if numbered and _is_integer(row.label) else str(row.label)
        if name not in index_of:
            raise DataError(
                f"{path}: row {number}: label {row.label!r} is none of the {len(classes)} classes of the training "
                f"part: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"
            )
        labels[number - 1] = index_of[name]
    return labels


def _is_integer(label: str | int) -> bool:
    return label >= 0 if isinstance(label, int) else label.isdecimal() and len(label) < 20
