"""Which texts are the parts of a recipe of a language model: files and folders by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.corpus.documents import PlainText
from decant.pipeline.corpus.sources import read_documents
from decant.pipeline.errors import DataError
from decant.pipeline.phases.language.sources import texts_of
from decant.pipeline.support.notices import forget_what_was_said


@pytest.fixture(autouse=True)
def _anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_what_was_said()
    monkeypatch.chdir(tmp_path)


def documents(root: str, **settings: Any) -> dict[str, list[Any]]:
    """The documents of each part that has texts of its own."""
    found = texts_of(DataSettings(name="tokens", root=root, **settings))
    return {part: [each for _, each in read_documents(source)] for part, source in found.own.items()}


def refusal(root: str, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        documents(root, **settings)
    return str(caught.value)


def write(*names: str) -> None:
    """Files of one text, which is their name."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(json.dumps({"text": name}))


def texts(*names: str) -> list[PlainText]:
    return [PlainText(name) for name in names]


def test_shards_are_the_part_that_they_are_named_for(capsys: pytest.CaptureFixture[str]) -> None:
    shards = [f"a/train-0000{shard}-of-00002.jsonl" for shard in (0, 1)]
    write(*shards, "a/test_0.jsonl", "a/.cache/x.jsonl")
    assert documents("a") == {"train": texts(*shards), "test": texts("a/test_0.jsonl")}
    assert capsys.readouterr().err == ""
    write("b/one.jsonl", "b/two-1.jsonl", "b/.git/three.jsonl")
    assert documents("b") == {"train": texts("b/one.jsonl", "b/two-1.jsonl")}, (
        "one corpus, without what git keeps"
    )


def test_a_file_that_a_setting_names_whole_is_that_part() -> None:
    write("a/train.jsonl", "a/wiki_2023.jsonl", "a/test-1.jsonl", "a/test-2.jsonl")
    assert documents("a", validation="wiki_2023", test="test-2") == {
        "train": texts("a/train.jsonl"),
        "validation": texts("a/wiki_2023.jsonl"),
        "test": texts("a/test-2.jsonl"),
    }
    assert documents("a", train="test-1")["train"] == texts("a/test-1.jsonl")


def test_what_no_part_takes_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    write("a/train.jsonl", "a/train-1.jsonl", "a/validation.jsonl", "a/extra/one.jsonl")
    assert documents("a") == {"train": texts("a/train.jsonl")}
    assert capsys.readouterr().err.splitlines() == [
        "a: extra, validation are not used: networks learn from train and are measured on a share of it "
        "(data.validation = 'validation' uses that)",
        "a: train-1.jsonl is left out: another file or folder of the same name is that part",
    ]
    write("b/data/train.jsonl", "b/data/test.jsonl")
    assert documents("b") == {"train": texts("b/data/test.jsonl", "b/data/train.jsonl")}
    assert capsys.readouterr().err == (
        "b: is one corpus, of which a share is measured on; b/data has the parts test, train: data.root = "
        '"b/data" uses them\n'
    )


def test_the_training_part_may_have_another_name() -> None:
    write("a/train_sft.jsonl", "a/test_sft.jsonl")
    assert documents("a", train="train_sft", test="test_sft") == {
        "train": texts("a/train_sft.jsonl"),
        "test": texts("a/test_sft.jsonl"),
    }
    assert refusal("a", train="train_gen") == (
        "data.train: a: has no part train_gen; it has none. A part is a file (train_gen.txt, train_gen.jsonl, "
        "train_gen.parquet) or a folder in it"
    )
    for setting in ("test", "validation"):
        with pytest.raises(ValueError, match=r"'train_sft' is what networks are trained on"):
            DataSettings(name="tokens", train="train_sft", **{setting: "train_sft"})  # type: ignore[arg-type]


def test_a_training_part_called_test_is_not_measured_on_too() -> None:
    write("a/test.jsonl", "a/validation.jsonl")
    found = texts_of(DataSettings(name="tokens", root="a", train="test"))
    assert set(found.own) == {"train"}
    assert found.shares == {"test": 0.1}


def test_a_folder_in_it_that_may_not_be_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a/one.jsonl", "a/locked/two.jsonl")
    entries = Path.iterdir

    def denied(path: Path) -> Any:
        if path.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    assert set(texts_of(DataSettings(name="tokens", root="a")).own) == {"train"}
