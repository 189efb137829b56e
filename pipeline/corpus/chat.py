"""A chat as one text by the tokenizer's template, and where in it the assistant speaks."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from decant.pipeline.corpus.documents import Chat
from decant.pipeline.errors import DataError

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class Rendered(NamedTuple):
    """A chat as text."""

    text: str
    spans: list[tuple[int, int]]
    """[first, end) characters of what is learnt from."""


def render(tokenizer: Any, chat: Chat, where: str, *, assistant_only: bool) -> Rendered:
    """The text of a chat; `spans` are the whole, or with `assistant_only` what the assistant writes after the given
    messages.

    Raises DataError where the tokenizer has no template, the template refuses the messages, or the assistant's part
    cannot be told.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            f"{where}: is a chat, and the tokenizer has no chat template; take the tokenizer of a chat model, or set "
            "tokenizer.chat_template (of a recipe data.chat_template)"
        )
    messages = list(chat.messages)
    text = _text(tokenizer, messages, where)
    if not assistant_only:
        return Rendered(text, [(0, len(text))])
    spans = [
        _span(tokenizer, messages, place, text, where)
        for place, message in enumerate(messages)
        if message["role"] == "assistant" and place >= chat.given
    ]
    if not spans:
        raise _no_answer(chat, where)
    return Rendered(text, spans)


def marks_assistant(tokenizer: Any) -> bool:
    """Whether a template says itself what the assistant writes, by {% generation %}."""
    return bool(_GENERATION.search(str(getattr(tokenizer, "chat_template", "") or "")))


def writes_the_date(tokenizer: Any) -> bool:
    """Whether a template writes the date of today, as that of Llama 3.2 does."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", "") or "")


def marked_tokens(tokenizer: Any, chat: Chat, where: str) -> tuple[list[int], list[int]]:
    """(ids, 1 where the assistant writes) by the template's own marks. Raises DataError."""
    try:
        found = tokenizer.apply_chat_template(
            list(chat.messages), return_dict=True, return_assistant_tokens_mask=True
        )
    except Exception as error:  # of the template, which is a program
        raise DataError(f"{where}: the chat template refuses it ({_line(error)})") from None
    ids, mask = list(found["input_ids"]), list(found["assistant_masks"])
    if not any(mask):
        raise _no_answer(chat, where)
    return ids, mask


def _no_answer(chat: Chat, where: str) -> DataError:
    roles = (
        ", ".join(dict.fromkeys(str(message["role"]) for message in chat.messages[chat.given :])) or "none"
    )
    return DataError(
        f'{where}: no message is of the assistant, and targets = "assistant" learns from no other; the roles that '
        f"may be learnt from are {roles}"
    )


def _span(tokenizer: Any, messages: list[Any], place: int, text: str, where: str) -> tuple[int, int]:
    """The characters of one answer: what the template adds to the chat before it, up to the next message."""
    if place == 0:
        raise DataError(f"{where}: begins with the assistant; what it answers to must come before")
    before = _text(tokenizer, messages[:place], where, add_generation_prompt=True)
    until = _text(tokenizer, messages[: place + 1], where)
    if not until.startswith(before) or not text.startswith(until):
        raise DataError(
            f"{where}: message {place + 1}: the chat template writes it otherwise when more follows, so the "
            "assistant's part cannot be told; mark it by {% generation %} in the template, or set "
            'targets = "all"'
        )
    return len(before), len(until)


def _text(tokenizer: Any, messages: list[Any], where: str, **options: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
    except Exception as error:  # of the template, which is a program
        raise DataError(f"{where}: the chat template refuses it ({_line(error)})") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
