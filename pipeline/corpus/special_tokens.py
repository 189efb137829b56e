"""Special tokens that texts hold: counted while they are tokenised, and said at the end.

A tokenizer makes one token of the characters `<|endoftext|>`, wherever they stand. So texts that were joined by it are
one document, a message can end itself, and of a text that begins with the beginning-of-text token there are two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decant.pipeline.corpus.documents import Chat, Document, PlainText
from decant.pipeline.corpus.tokenizer import splits_special_tokens
from decant.pipeline.corpus.tokens import Tokens
from decant.pipeline.support.notices import say


class SpecialTokens:
    """Counts documents in whose own text a special token stands, and those that begin with one twice."""

    def __init__(self, tokenizer: Any) -> None:
        names = () if splits_special_tokens(tokenizer) else sorted(_special_tokens(tokenizer), key=len)
        self._pattern = re.compile("|".join(map(re.escape, reversed(names)))) if names else None
        self._begin, self._begin_id = (
            getattr(tokenizer, "bos_token", None),
            getattr(tokenizer, "bos_token_id", None),
        )
        self._end = getattr(tokenizer, "eos_token", None)
        self.count = self.held = self.twice = 0
        self._first, self._first_twice, self._in_chats = "", "", False

    def looked_at(self, documents: Iterator[tuple[str, Document]]) -> Iterator[tuple[str, Document]]:
        """The documents, in each of which special tokens are looked for."""
        for where, document in documents:
            self.count += 1
            found = None if self._pattern is None else self._found(document)
            if found is not None:
                self.held += 1
                self._in_chats |= isinstance(document, Chat)
                self._first = self._first or f"{where} with {found}"
            yield where, document

    def see(self, where: str, tokens: Tokens) -> None:
        """Looks at how the tokens of a document begin."""
        if self._begin_id is not None and (tokens.ids[:2] == self._begin_id).sum() == 2:
            self.twice += 1
            self._first_twice = self._first_twice or where

    def say(self, path: Path) -> None:
        """Says what was found, a line each."""
        of = f"of {self.count:,} documents"
        if self.held:
            what = (
                "so a message may end itself, or go on as another speaker's: take them out of the texts"
                if self._in_chats
                else "where they stand between documents, split the texts by them (separator); "
                "tokenizer.split_special_tokens = True reads them as characters"
            )
            say(
                f"{path}: {self.held:,} {of} have special tokens in their text, the first is {self._first}: each is "
                f"read as that token, and not as characters; {what}"
            )
        if self.twice:
            say(
                f"{path}: {self.twice:,} {of} begin with {self._begin} twice, the first is {self._first_twice}: the "
                "text has it, and the tokenizer adds it; take it out of the texts"
            )

    def _found(self, document: Document) -> str | None:
        """The first special token of a text, but one that begins or ends a document."""
        assert self._pattern is not None
        for text in _texts(document):
            found = self._pattern.search(text)
            if found is None:
                continue
            if not isinstance(document, Chat):
                inner = text.removeprefix(self._begin or "")
                inner = (
                    inner.rstrip().removesuffix(self._end or "") if text is _texts(document)[-1] else inner
                )
                found = self._pattern.search(inner)
            if found is not None:
                return found[0]
        return None


def _special_tokens(tokenizer: Any) -> set[str]:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    known = {*getattr(tokenizer, "all_special_tokens", ()), *(str(one) for one in added if one.special)}
    return {name for name in known if name}


def _texts(document: Document) -> list[str]:
    if isinstance(document, PlainText):
        return [document.text]
    if isinstance(document, Chat):
        return [str(message.get("content", "")) for message in document.messages]
    return [document.prompt, document.completion]
