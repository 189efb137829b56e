"""Texts of a recipe in datasets of Hugging Face: saved on disk, read from a folder, or fetched from the hub before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.corpus.documents import Chat, Completion
from decant.pipeline.corpus.sources import read_documents
from decant.pipeline.errors import DataError
from decant.pipeline.phases.language.sources import texts_of
from tests.helpers import language
from tests.helpers.extras import needs
from tests.phases.language.test_sources import documents, refusal, texts

pytestmark = needs("datasets")


@pytest.fixture(autouse=True)
def _anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))


@pytest.mark.parametrize("kind", ["plain", "completions", "chats"])
def test_a_saved_dataset_has_its_splits(kind: str) -> None:
    import datasets

    words = language.sentences(6)
    expected: list[Any]
    if kind == "plain":
        rows, expected = [{"text": text, "other": 1} for text in words], texts(*words)
    elif kind == "completions":
        rows = [{"prompt": text, "completion": text[::-1]} for text in words]
        expected = [Completion(text, text[::-1]) for text in words]
    else:
        rows = [language.chat(text, text[::-1]) for text in words]
        expected = [Chat(tuple(row["messages"])) for row in rows]
    whole = datasets.Dataset.from_list(rows)
    whole.save_to_disk("alone")
    assert documents("alone") == {"train": expected}
    some = {"train_sft": whole.select(range(4)), "test_sft": whole.select(range(4, 6))}
    datasets.DatasetDict(some).save_to_disk("parts")
    found = documents("parts", train="train_sft", test="test_sft")
    assert found == {"train": expected[:4], "test": expected[4:]}
    assert refusal("parts").endswith(
        "has the parts test_sft, train_sft, and none called train: name what networks learn from, as data.train = "
        "'train_sft'"
    )
    assert 'was written by save_to_disk; set data.root = "parts"' in refusal("hf:parts")


def test_columns_beside_the_text_are_not_decoded() -> None:
    import datasets
    import pyarrow
    from pyarrow import parquet

    features = datasets.Features(text=datasets.Value("string"), page=datasets.Image())
    rows = {"text": ["one", "two"], "page": [{"bytes": b"no image", "path": None}] * 2}
    Path("pages").mkdir()
    parquet.write_table(pyarrow.Table.from_pydict(rows, schema=features.arrow_schema), "pages/train.parquet")
    assert documents("hf:./pages") == {"train": texts("one", "two")}
    table = datasets.load_dataset("./pages", split="train")
    assert [each for _, each in read_documents(table)] == texts("one", "two")
    shouted = table.select_columns(["text"]).with_transform(
        lambda some: {"text": [t.upper() for t in some["text"]]}
    )
    assert [each for _, each in read_documents(shouted)] == texts("ONE", "TWO")


def test_of_columns_that_a_user_chose_the_others_are_not_read() -> None:
    import datasets

    rows = {"text": ["raw"], "prompt": ["ask"], "completion": ["answer"]}
    chosen = datasets.Dataset.from_dict(rows).with_format(columns=["prompt", "completion"])
    assert [each for _, each in read_documents(chosen)] == [Completion("ask", "answer")]


def test_without_a_network_what_was_fetched_before_is_read_and_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    from decant.pipeline.data import hub_parts

    monkeypatch.setattr(hub_parts, "unreachable", lambda: "no route")
    load, waits = datasets.load_dataset, list[bool]()

    def watched(*words: str) -> Any:
        waits.append(not datasets.config.HF_HUB_OFFLINE)
        return load(*words)

    monkeypatch.setattr(datasets, "load_dataset", watched)
    assert refusal("hf:someone/texts") == (
        "hf:someone/texts: there is no such folder here, and if it is a dataset of the hub: that cannot be reached "
        "(no route), and nothing of that name was fetched before"
    )
    assert not datasets.config.HF_HUB_OFFLINE, "as it was"
    Path("texts").mkdir()
    datasets.Dataset.from_dict({"text": ["one", None]}).to_parquet("texts/train.parquet")
    load("./texts")
    (built,) = Path("kept").rglob("dataset_info.json")
    shutil.copytree(built.parent, f"kept/someone___texts/default/0.0.0/{'a' * 40}")
    found = texts_of(DataSettings(name="tokens", root="hf:someone/texts"))
    with pytest.raises(DataError, match=r"hf:someone/texts: train: row 2: text: is null; leave the row out"):
        list(read_documents(found.own["train"]))
    assert waits == [False, False], "the library asks a hub that cannot be reached for half a minute"
