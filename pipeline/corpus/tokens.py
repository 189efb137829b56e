"""Documents → token ids, and which of them are targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.corpus.chat import marked_tokens, marks_assistant, render, writes_the_date
from decant.pipeline.corpus.documents import Chat, Completion, Document, PlainText
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

Targets: TypeAlias = Literal["all", "assistant"]


class Tokens(NamedTuple):
    """The tokens of a document."""

    ids: NDArray[np.int64]
    """(L,)"""
    targets: NDArray[np.bool_]
    """(L,) which tokens are learnt from, as the next one of those before them."""


class Tokeniser:
    """Makes tokens of documents, with the special tokens that the tokenizer adds.

    targets: "all", or "assistant": what the assistant of a chat writes, and completions. end_of_text: whether plain
    texts and completions end in the tokenizer's end-of-text token; a chat ends as its template has it.

    Raises DataError where the tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any, targets: Targets, end_of_text: bool) -> None:
        if targets not in ("all", "assistant"):
            raise DataError(f'targets: expected "all" or "assistant", found {targets!r}')
        if end_of_text and getattr(tokenizer, "eos_token_id", None) is None:
            raise DataError(
                "the tokenizer has no end-of-text token, by which texts would end; set tokenizer.eos_token, or "
                "end_of_text = false"
            )
        self.tokenizer, self._targets = tokenizer, targets
        self._end = tokenizer.eos_token_id if end_of_text else None
        self._marked, self._dated = marks_assistant(tokenizer), writes_the_date(tokenizer)

    def encode(self, documents: Sequence[tuple[str, Document]]) -> list[Tokens]:
        """The tokens of (where, document) each. Raises DataError, naming the document."""
        plain = [document.text for _, document in documents if isinstance(document, PlainText)]
        ids = iter(self._call(plain)["input_ids"] if plain else [])
        return [
            self._plain(next(ids), where)
            if isinstance(document, PlainText)
            else self._completion(document, where)
            if isinstance(document, Completion)
            else self._chat(document, where)
            for where, document in documents
        ]

    def _plain(self, ids: list[int], where: str) -> Tokens:
        if self._targets == "assistant":
            raise DataError(
                f'{where}: is a plain text, in which no assistant speaks; set targets = "all", or give messages'
            )
        return self._ended(np.array(ids, np.int64), np.ones(len(ids), np.bool_))

    def _completion(self, document: Completion, where: str) -> Tokens:
        """Both tokenised together, as the tokens of a completion may depend on what stands before it; a token that
        begins in the prompt belongs to the prompt.
        """
        begin = len(document.prompt)
        text = document.prompt + document.completion
        span = (0, len(text)) if self._targets == "all" else (begin, len(text))
        return self._ended(*self._spanned(text, [span], where, add_special_tokens=True))

    def _chat(self, document: Chat, where: str) -> Tokens:
        if self._dated:
            say_once(
                "the chat template writes the date of today into each text (strftime_now), so another day's tokens are "
                "others, which caches of today refuse: keep the token file, or give a template with a date of its own"
            )
        only = self._targets == "assistant"
        if only and self._marked and not document.given:
            ids, mask = marked_tokens(self.tokenizer, document, where)
            return Tokens(np.array(ids, np.int64), np.array(mask, np.bool_))
        text, spans = render(self.tokenizer, document, where, assistant_only=only)
        return self._spanned(text, spans, where, add_special_tokens=False)

    def _spanned(
        self, text: str, spans: list[tuple[int, int]], where: str, *, add_special_tokens: bool
    ) -> Tokens:
        """The tokens of a text; targets are those that begin in one of `spans`."""
        if self._targets == "all":
            ids = np.array(
                self._call([text], add_special_tokens=add_special_tokens)["input_ids"][0], np.int64
            )
            return Tokens(ids, np.ones(len(ids), np.bool_))
        if not getattr(self.tokenizer, "is_fast", False):
            raise DataError(
                f'{where}: targets = "assistant" needs to know where each token stands, which this tokenizer does not '
                "tell; take a fast one"
            )
        found = self._call([text], add_special_tokens=add_special_tokens, return_offsets_mapping=True)
        ids, offsets = (
            np.array(found["input_ids"][0], np.int64),
            np.array(found["offset_mapping"][0]).reshape(-1, 2),
        )
        first, end = offsets[:, 0], offsets[:, 1]
        targets = np.zeros(len(ids), np.bool_)
        for begin, stop in spans:
            targets |= (first >= begin) & (end <= stop) & (end > first)
        if not targets.any():
            raise DataError(f"{where}: none of its tokens is of the assistant")
        return Tokens(ids, targets)

    def _ended(self, ids: NDArray[np.int64], targets: NDArray[np.bool_]) -> Tokens:
        if self._end is None or (len(ids) and ids[-1] == self._end):
            return Tokens(ids, targets)
        return Tokens(np.append(ids, self._end), np.append(targets, True))

    def _call(self, texts: list[str], **options: bool) -> Any:
        return self.tokenizer(texts, return_attention_mask=False, truncation=False, verbose=False, **options)
