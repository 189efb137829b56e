"""Texts in files: read, tokenised, padded and masked; and what is no set of texts is named."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import load_data
from decant.pipeline.data.samples import num_classes, vocabulary
from decant.pipeline.data.text import TextData
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.phases.datasets import Splits


class Words:
    """A tokenizer for tests of reading alone: a token is the length of a word."""

    pad_token_id = 0

    def __len__(self) -> int:
        return 50

    def __call__(self, some: list[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        assert truncation
        return {"input_ids": [[len(word) for word in text.split()][:max_length] for text in some]}


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = types.ModuleType("transformers")
    library.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *given, **options: Words())
    monkeypatch.setitem(sys.modules, "transformers", library)


def read(folder: Path, split: Any = "train", **settings: Any) -> TextData:
    found = load_data(
        DataSettings(name="text", root=str(folder), tokenizer=str(folder), **settings), ViewsSettings(), split
    )
    assert isinstance(found, TextData)
    return found


def write(folder: Path, part: str, *lines: str, ending: str = "csv") -> Path:
    (folder / f"{part}.{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


ROWS = ("text,label", '"one, two three",yes', "four,no", "a bb ccc dddd eeeee,yes", "nobody knows,")


# Reading


@pytest.mark.usefixtures("words")
def test_a_batch_is_padded_to_its_longest_and_masked(tmp_path: Path) -> None:
    data = read(write(tmp_path, "train", *ROWS), max_length=4)
    assert (len(data), data.input_shape, vocabulary(data), num_classes(data)) == (4, (4,), 50, 2)
    assert data.classes == ("no", "yes")
    assert data.labels.tolist() == [1, 0, 1, -1]
    batch = data.raw(np.array([1, 0]))
    assert {name: value.dtype for name, value in batch.items()} == dict.fromkeys(batch, np.dtype(np.int64))
    assert batch["input_ids"].tolist() == [[4, 0, 0], [4, 3, 5]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert data.raw(np.array([2]))["input_ids"].tolist() == [[1, 2, 3, 4]], "cut at max_length"
    assert data.raw(np.array([1]))["input_ids"].tolist() == [[4]]


@pytest.mark.usefixtures("words")
def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = [("one, two three", "yes"), ("four", "no"), ("a bb ccc dddd eeeee", "yes"), ("nobody knows", None)]
    found = set()
    for ending, lines in {
        "csv": ROWS,
        "tsv": ["text\tlabel", *(f"{text}\t{label or ''}" for text, label in rows)],
        "jsonl": [json.dumps({"label": label, "more": 1, "text": text}) for text, label in rows],
    }.items():
        (tmp_path / ending).mkdir()
        found.add(read(write(tmp_path / ending, "train", *lines, ending=ending)).digest())
    assert len(found) == 1


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(
    ("written", "classes", "labels"),
    [
        (["2", "0", "", "0"], ("0", "1", "2"), [2, 0, -1, 0]),
        (["-1", "0", "1", ""], ("-1", "0", "1"), [0, 1, 2, -1]),
        (["10", "9", "b", "9"], ("10", "9", "b"), [0, 1, 2, 1]),
    ],
)
def test_labels_are_numbers_or_names(
    tmp_path: Path, written: list[str], classes: tuple[str, ...], labels: list[int]
) -> None:
    data = read(write(tmp_path, "train", "\ufefftext,label", *(f"word,{label}" for label in written)))
    assert (data.classes, data.labels.tolist()) == (classes, labels)


@pytest.mark.usefixtures("words")
def test_a_number_below_0_is_a_name_like_any_other(tmp_path: Path) -> None:
    lines = [json.dumps({"text": "word", "label": label}) for label in (1, -1, 0, None)]
    data = read(write(tmp_path, "train", *lines, ending="jsonl"))
    assert (data.classes, data.labels.tolist()) == (("-1", "0", "1"), [2, 0, 1, -1])


@pytest.mark.usefixtures("words")
def test_both_parts_have_the_classes_of_the_training_part(tmp_path: Path) -> None:
    write(write(tmp_path, "train", *ROWS), "test", "text,label", "five,yes", "six,")
    assert read(tmp_path, "test").classes == read(tmp_path).classes
    assert read(tmp_path, "test").labels.tolist() == [1, -1]


@pytest.mark.usefixtures("words")
def test_one_token_label_or_class_is_another_digest(tmp_path: Path) -> None:
    whole = read(write(tmp_path, "train", *ROWS))
    others = {
        "a token": [*ROWS[:2], "fours,no", *ROWS[3:]],
        "a label": [*ROWS[:2], "four,yes", "a bb ccc dddd eeeee,no", ROWS[4]],
        "a name": [row.replace("yes", "yep") for row in ROWS],
        "where a text ends": [ROWS[0], '"one, two",yes', "xxxxx four,no", *ROWS[3:]],
        "a text less": ROWS[:-1],
        "an order": [ROWS[0], *ROWS[:0:-1]],
    }
    digests = {what: read(write(tmp_path, "train", *lines)).digest() for what, lines in others.items()}
    assert len({whole.digest(), *digests.values()}) == 1 + len(others), digests
    whole.vocabulary += 1
    del whole.__dict__["_digest"]
    assert whole.digest() != read(write(tmp_path, "train", *ROWS)).digest()


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize(
    ("ending", "lines", "says"),
    [
        (
            "csv",
            ["text,class", "a,b"],
            "train.csv: row 1: expected the columns text and label, found text, class",
        ),
        ("csv", ["text,label"], "train.csv: no rows"),
        ("csv", ["text,label", "a,"], "train.csv: no row has a label"),
        (
            "jsonl",
            ['{"text": "a", "label": 0}', '{"text": "a", "label": 0.5}'],
            "row 2: label 0.5: expected a name",
        ),
        ("jsonl", ['{"text": "a", "label": true}'], "row 1: label True: expected a name"),
        (
            "jsonl",
            ['{"text": 3, "label": 1}'],
            "row 1: expected the columns text and label, found text, label",
        ),
        ("jsonl", ["[1]"], "row 1: expected the columns text and label, found list"),
        ("jsonl", ['{"text"'], "train.jsonl: cannot be read: "),
    ],
)
def test_a_file_that_is_no_set_of_texts_is_named(
    tmp_path: Path, ending: str, lines: list[str], says: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, "train", *lines, ending=ending))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("words")
def test_what_is_missing_or_unknown_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train\.csv, train\.tsv or train\.jsonl; set data\.root"):
        read(tmp_path)
    write(tmp_path, "train", *ROWS)
    with pytest.raises(
        DataError, match=r"no test, val, valid or validation with the ending \.csv, \.tsv or \.jsonl"
    ):
        read(tmp_path, "test")
    write(tmp_path, "test", "text,label", "five,yes", "six,maybe")
    with pytest.raises(
        DataError, match=r"test\.csv: row 2: label 'maybe' is none of the 2 classes .*: no, yes"
    ):
        read(tmp_path, "test")
    (tmp_path / "train.csv").write_bytes(b"text,label\n\xff\xfe,no\n")
    with pytest.raises(DataError, match=r"train\.csv: cannot be read: "):
        read(tmp_path)


def test_without_the_extra_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        DataError, match=r"transformers is not installed; run: pip install 'decant-kd\[text\]'"
    ):
        read(write(tmp_path, "train", *ROWS))


@pytest.mark.usefixtures("words")
def test_texts_are_not_augmented(tmp_path: Path) -> None:
    write(write(tmp_path, "train", *ROWS), "test", *ROWS)
    settings = [
        f"data.root={tmp_path}",
        f"data.tokenizer={tmp_path}",
        'views.augment=[{op="flip"}]',
        "views.count=2",
    ]
    with pytest.raises(DataError, match=r"views\.augment: flip: works on images, and text is texts"):
        Splits.load(load_recipe("text", settings).settings)


@pytest.mark.parametrize(
    ("name", "override", "says"),
    [
        (
            "digits",
            "data.name=text",
            "data.tokenizer: missing; give the folder of one, or its name on the hub",
        ),
        (
            "digits",
            "data.tokenizer=bert",
            'data.tokenizer: is of texts, name = "text" or "tokens"; leave it out',
        ),
        (
            "digits",
            "data.max_length=9",
            'data.max_length: is of texts, name = "text" or "tokens"; leave it out',
        ),
    ],
)
def test_a_tokenizer_belongs_to_texts(name: str, override: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, [override])
    assert str(caught.value) == f"{name}: {says}"
