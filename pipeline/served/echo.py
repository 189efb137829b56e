"""Servers with the completions of OpenAI: `echo` and `logprobs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from decant.pipeline.served.connection import Connection
from decant.pipeline.served.dialect import NEUTRAL, Said, counted
from decant.pipeline.served.heads import (
    AnswerError,
    FewerError,
    Heads,
    MissingError,
    UnnamedError,
    a_list,
    entries,
    likeliest,
    number,
)
from decant.pipeline.served.prompt import Prompt
from decant.pipeline.served.token_names import TokenNames


@dataclass(frozen=True)
class Echo:
    """Completions as OpenAI's, with `echo` and `logprobs`. Tokens are named by their ids, or else by their texts."""

    model: str
    as_ids: bool = True
    """Whether tokens are sent as ids."""
    wants_ids: bool = True
    """Whether the server is asked to name tokens by ids, which some know."""
    spare: int = 0
    """How many more are asked for, as some may be named by a text that is of several tokens."""
    names: TokenNames | None = field(default=None, repr=False)
    name: str = "openai"

    def ask(self, connection: Connection, prompt: Prompt, kept: int, said: Said) -> Heads:
        answer = connection.post(
            "/v1/completions",
            {
                "model": self.model,
                "prompt": prompt.ids if self.as_ids else self._named().text(prompt.ids),
                "echo": True,
                "logprobs": kept + self.spare,
                "max_tokens": 1,
                **(
                    {"return_tokens_as_token_ids": True, "add_special_tokens": False}
                    if self.wants_ids
                    else {}
                ),
                **NEUTRAL,
            },
        )
        about = entries(answer, "choices", 0, "logprobs")
        tokens, own, top = (
            a_list(entries(about, name)) for name in ("tokens", "token_logprobs", "top_logprobs")
        )
        said.see(answer)
        if len(tokens) < len(prompt.tokens) and len(tokens) <= 1:
            raise MissingError("tells log-probabilities of what it generates, and not of the prompt (echo)")
        count = counted(answer)
        if len(tokens) == (count if isinstance(count, int) else len(prompt.tokens)) + 1:
            tokens = tokens[:-1]  # without the one that it generated
        if not len(own) == len(top) >= len(tokens) or not all(isinstance(one, str) for one in tokens):
            raise AnswerError("expected as many token_logprobs and top_logprobs as tokens, which are texts")
        if all(one.startswith("token_id:") for one in tokens):
            prompt.require_same([_from_name(one) for one in tokens])
            prompt.require_count(count)
            return _heads(prompt, own, top, kept, _from_name)
        said.by_text = True
        self._named().require_same(prompt, tokens)
        prompt.require_count(count)
        return _heads(prompt, own, top, kept, self._named().id_of, by_text=True)

    def _named(self) -> TokenNames:
        if self.names is None:
            raise AnswerError(
                "it names tokens by their texts, and the corpus has no tokenizer to know them by: open it with "
                "Corpus(path, tokenizer), or start the server with --return-tokens-as-token-ids"
            )
        return self.names


def _heads(
    prompt: Prompt,
    own: list[Any],
    top: list[Any],
    kept: int,
    id_of: Callable[[str], int | None],
    by_text: bool = False,
) -> Heads:
    ids, values, following, unnamed = [], [], [], 0
    for place, next_id in zip(prompt.places.tolist(), prompt.next_ids.tolist(), strict=True):
        row = top[place + 1]
        if not isinstance(row, dict):
            raise AnswerError(f"expected top_logprobs by token at place {place}, found {type(row).__name__}")
        if len(row) < kept and not by_text:  # several tokens of one text are one entry
            raise FewerError(f"gives {len(row)} log-probabilities at a place, and {kept} are asked for")
        pairs = [(id_of(name), number(value)) for name, value in row.items()]
        named = {one: value for one, value in pairs if one is not None}
        unnamed += len(named) < len(row)
        following.append(number(own[place + 1]))
        if by_text and next_id not in named:  # its name may be of several tokens
            named[next_id] = following[-1]
        ids.append(list(named))
        values.append(list(named.values()))
    if by_text and min(map(len, ids)) < kept:
        raise UnnamedError(
            f"it names all but {min(map(len, ids))} of the likeliest tokens of a place by texts that are of several "
            f"tokens, and {kept} are to be kept; take a smaller head, or a server that names tokens by their ids"
        )
    return likeliest(ids, values, following, kept)._replace(unnamed=unnamed)


def _from_name(name: str) -> int:
    number_of = name.removeprefix("token_id:")
    if number_of == name or not number_of.isascii() or not number_of.isdigit() or len(number_of) > 10:
        raise AnswerError(f"expected token_id:NUMBER, found {name[:40]!r}")
    return int(number_of)
