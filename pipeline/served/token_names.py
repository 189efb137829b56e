"""Tokens by the texts that a server names them by."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from decant.pipeline.served.heads import AnswerError
from decant.pipeline.served.prompt import Prompt


class TokenNames:
    """Tokens by the texts that a server names them by, as far as a text is of one token alone."""

    def __init__(self, tokenizer: Any, count: int) -> None:
        self._tokenizer, self._count = tokenizer, count

    @cached_property
    def _texts(self) -> list[str]:
        """By id. A text alone may lose its space, so each is taken between others."""
        before = self._tokenizer.convert_tokens_to_ids(self._tokenizer.tokenize("a"))[:1]
        begin = len(self._decode(before))
        return [self._decode([*before, one])[begin:] for one in range(self._count)]

    @cached_property
    def _ids(self) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for one, text in enumerate(self._texts):
            found[text] = None if text in found else one
        return found

    def text(self, ids: list[int]) -> str:
        """The text of a prompt."""
        return self._decode(ids)

    def id_of(self, text: str) -> int | None:
        """None where it is of several tokens, or of none."""
        return self._ids.get(text)

    def require_same(self, prompt: Prompt, tokens: list[str]) -> None:
        """Raises AnswerError, naming the first token that differs."""
        ours = [self._texts[one] for one in prompt.ids]
        if ours == tokens or (ours[:1] == [f" {tokens[0]}"] and ours[1:] == tokens[1:]):
            return
        place = next((n for n, pair in enumerate(zip(ours, tokens, strict=False)) if pair[0] != pair[1]), -1)
        if place < 0:
            raise AnswerError(f"it read {len(tokens):,} tokens, and the corpus has {len(ours):,}")
        raise AnswerError(
            f"token {place:,} is {ours[place]!r} in the corpus, and the server read {tokens[place]!r}: it may add a "
            "token at the beginning, or have another tokenizer"
        )

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
