"""How samples are laid out over a corpus, checked against a plain loop over its documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.pipeline.corpus import Corpus, TokenSamples, tokenise
from decant.pipeline.corpus.parts import split_documents
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers import language


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """One all of whose tokens are targets, and one of chats."""
    folder = tmp_path_factory.mktemp("corpora")
    tokenizer = language.tokenizer()
    some = language.sentences(60)
    chats = [language.chat(*some[place : place + 4]) for place in range(0, 40, 4)]
    return {
        "all": tokenise(some, tokenizer, folder / "all"),
        "assistant": tokenise(chats, tokenizer, folder / "chats", targets="assistant"),
    }


def longhand(
    corpus: Corpus, documents: list[int], rows: str, length: int, across: bool
) -> list[dict[str, Any]]:
    """Samples by a plain loop: ids, the group of each token, and the places that predict."""
    flat = [
        (document, place)
        for document in documents
        for place in range(corpus.offsets[document], corpus.offsets[document + 1])
    ]
    if rows == "packed":
        samples = [flat[first : first + length] for first in range(0, len(flat), length)]
    else:
        samples = []
        for document in documents:
            own = [each for each in flat if each[0] == document]
            cut = [own[first : first + length] for first in range(0, len(own), length)]
            samples += cut if rows == "pieces" else cut[:1]
    target = corpus.targets(0, corpus.num_tokens)
    ids = corpus.tokens(0, corpus.num_tokens)
    found = []
    for sample in samples:
        predicting = [
            place
            for place in range(len(sample) - 1)
            if target[sample[place + 1][1]] and (across or sample[place][0] == sample[place + 1][0])
        ]
        groups = (
            [len(sample)]
            if across
            else np.unique([each[0] for each in sample], return_counts=True)[1].tolist()
        )
        if predicting:
            found.append(
                {"ids": [ids[each[1]] for each in sample], "groups": groups, "positions": predicting}
            )
    return found


@pytest.mark.parametrize("kind", ["all", "assistant"])
@pytest.mark.parametrize("rows", ["documents", "pieces", "packed"])
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("length", [2, 7, 16, 500])
def test_samples_are_those_of_a_plain_loop(
    kind: str, rows: Any, across: bool, length: int, corpora: dict[str, Corpus]
) -> None:
    corpus = corpora[kind]
    documents = list(range(0, len(corpus), 2))
    expected = longhand(corpus, documents, rows, length, across)
    if not expected:
        with pytest.raises(DataError, match="no sample has a token that is learnt from"):
            TokenSamples(corpus, max_length=length, rows=rows, documents=documents, across=across)
        return
    samples = TokenSamples(corpus, max_length=length, rows=rows, documents=documents, across=across)
    assert len(samples) == len(expected)
    for index, sample in enumerate(expected):
        assert samples.tokens(index).tolist() == sample["ids"]
        assert samples.positions(index).tolist() == sample["positions"]
        assert samples.lengths[index] == len(sample["ids"])
        assert samples.num_positions[index] == len(sample["positions"])
        if rows == "packed":
            assert samples.groups(index).tolist() == sample["groups"]


def test_other_documents_and_another_order_are_another_identity(corpora: dict[str, Corpus]) -> None:
    corpus = corpora["all"]
    every = np.arange(len(corpus))
    chosen = [None, every, every[::-1], every[:-1], np.r_[every[:-1], 0]]
    found = [str(TokenSamples(corpus, max_length=64, documents=documents).identity) for documents in chosen]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_truncation_keeps_the_end_that_it_says(corpora: dict[str, Corpus]) -> None:
    corpus = corpora["all"]
    left = TokenSamples(corpus, max_length=5, truncation="left")
    right = TokenSamples(corpus, max_length=5)
    assert left.tokens(0).tolist() == corpus.document(0)[-5:].tolist()
    assert right.tokens(0).tolist() == corpus.document(0)[:5].tolist()
    assert left.identity["samples"] != right.identity["samples"]


def test_what_is_left_out_is_counted(corpora: dict[str, Corpus], capsys: pytest.CaptureFixture[str]) -> None:
    corpus = corpora["all"]
    lost = corpus.num_tokens - sum(min(5, len(corpus.document(i))) for i in range(len(corpus)))
    forget_what_was_said()
    TokenSamples(corpus, max_length=5)
    assert f"{lost:,} of {corpus.num_tokens:,} tokens are left out" in capsys.readouterr().err


def test_equal_documents_are_in_one_part_and_stay_when_others_are_added(tmp_path: Path) -> None:
    tokenizer, some = language.tokenizer(), language.sentences(300)
    shares = {"train": 0.8, "validation": 0.1, "test": 0.1}
    first = tokenise(some, tokenizer, tmp_path / "a")
    second = tokenise(["one more", *some, *some], tokenizer, tmp_path / "b")
    ours, theirs = (split_documents(corpus, shares) for corpus in (first, second))
    assert sorted(np.concatenate(list(ours.values())).tolist()) == list(range(300))
    assert 0.7 < len(ours["train"]) / 300 < 0.9
    for name, documents in ours.items():
        moved = set((documents + 1).tolist()) | set((documents + 301).tolist())
        assert moved <= set(theirs[name].tolist()), name
    assert split_documents(first, shares, seed=1)["test"].tolist() != ours["test"].tolist()


def test_settings_that_cannot_be_are_refused(corpora: dict[str, Corpus]) -> None:
    corpus = corpora["all"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_length": 1}, "max_length: expected 2 or more"),
        ({"max_length": 8, "rows": "cut"}, "rows: expected one of"),
        ({"max_length": 8, "truncation": "middle"}, "truncation"),
        ({"max_length": 8, "documents": [60]}, "documents: expected 0 to 59"),
        ({"max_length": 8, "documents": []}, "documents: expected indices"),
    ]
    for options, said in cases:
        with pytest.raises(DataError, match=said):
            TokenSamples(corpus, **options)
    for shares in ({"train": 0.5}, {"train": 1.5, "test": -0.5}, {}):
        with pytest.raises(DataError, match="shares"):
            split_documents(corpus, shares)
    with pytest.raises(DataError, match="the part test has none"):
        split_documents(corpus, {"train": 0.99999, "test": 0.00001})
