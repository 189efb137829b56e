"""One document: a plain text, a prompt with its completion, or a chat; made of a row, and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

Column: TypeAlias = str | tuple[str, str] | None
"""The column of a row that holds the text or the messages, or the two of a prompt and its completion; None finds it."""

_CHAT_AS_JSON = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']\s*:""")
_KNOWN = ("text", "messages", "prompt and completion")


@dataclass(frozen=True)
class PlainText:
    """A text, all of which is learnt from."""

    text: str

    @property
    def is_empty(self) -> bool:
        return not self.text.strip()

    @property
    def content(self) -> Any:
        """What its digest is of, as JSON."""
        return self.text


@dataclass(frozen=True)
class Completion:
    """A prompt, and the text that goes on from it."""

    prompt: str
    completion: str

    @property
    def is_empty(self) -> bool:
        return not self.completion.strip()

    @property
    def content(self) -> Any:
        return [self.prompt, self.completion]


@dataclass(frozen=True)
class Chat:
    """Messages, {"role": …, "content": …, …}."""

    messages: tuple[Mapping[str, Any], ...]
    given: int = 0
    """How many of the first messages are a prompt, from which nothing is learnt."""

    @property
    def is_empty(self) -> bool:
        return not any(message.get("content") for message in self.messages)

    @property
    def content(self) -> Any:
        return {"messages": list(self.messages), "given": self.given}


Document: TypeAlias = PlainText | Completion | Chat


def as_document(row: Any, where: str, column: Column = None) -> Document:
    """A document of a row: a text, or a mapping with `text`, `messages`, or `prompt` and `completion`.

    where: what messages call it. Raises DataError.

    >>> as_document({"prompt": "2 + 2 =", "completion": " 4"}, "row 1")
    Completion(prompt='2 + 2 =', completion=' 4')
    """
    if isinstance(row, str):
        return PlainText(_text(row, where))
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a text or named columns, found {type(row).__name__}")
    chosen = _recognised(row, where) if column is None else column
    if isinstance(chosen, str):
        value = _value(row, chosen, where)
        _doubt_text(value, where, chosen, asked_for=column is not None)
        if isinstance(value, str):
            return PlainText(_text(value, where))
        _doubt_row(row, where)
        return Chat(_messages(value, where, chosen))
    values = [_value(row, name, where) for name in chosen]
    if all(isinstance(value, str) for value in values):
        return Completion(*(_text(value, where) for value in values))
    if any(isinstance(value, str) for value in values):
        raise DataError(
            f"{where}: {chosen[0]} and {chosen[1]}: expected two texts, or two lists of messages, found one of each"
        )
    _doubt_row(row, where)
    prompt, completion = (_messages(value, where, name) for value, name in zip(values, chosen, strict=True))
    return Chat(prompt + completion, given=len(prompt))


def _recognised(row: Mapping[str, Any], where: str) -> str | tuple[str, str]:
    found: list[str | tuple[str, str]] = [name for name in ("text", "messages") if row.get(name) is not None]
    if row.get("prompt") is not None and row.get("completion") is not None:
        found.append(("prompt", "completion"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(str, row)) or "none"
    if not found:
        empty = next((name for name in _KNOWN if name in row), None)
        if empty is not None:
            raise DataError(f"{where}: {empty}: is null; leave the row out, or give another column=NAME")
        raise DataError(
            f"{where}: has the columns {names}, and none of {', '.join(_KNOWN)}; say which holds the text: column=NAME"
        )
    raise DataError(
        f"{where}: has the columns {names}, and several could be the text; say which: column=NAME"
    )


def _value(row: Mapping[str, Any], name: str, where: str) -> Any:
    if row.get(name) is None:
        raise DataError(f"{where}: has no {name}; it has {', '.join(map(str, row)) or 'no columns'}")
    return row[name]


def _messages(value: Any, where: str, name: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, Mapping) for each in value):
        raise DataError(f"{where}: {name}: expected a text or a list of messages, found {_kind(value)}")
    if not value:
        raise DataError(f"{where}: {name}: there are no messages")
    return tuple(_message(each, f"{where}: message {place}") for place, each in enumerate(value, start=1))


def _message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A message without columns that are empty, as tables have them for other messages."""
    kept = {str(name): value for name, value in message.items() if value is not None}
    if not isinstance(kept.get("role"), str):
        raise DataError(f"{where}: has no role; a message is {{role, content}}{_as_sharegpt(kept)}")
    if not isinstance(kept.get("content", ""), str):
        raise DataError(
            f"{where}: its content is of type {type(kept['content']).__name__}; texts alone are read"
        )
    _text(kept.get("content", ""), where)
    if _holds_null(kept):
        say_once(
            f"{where}: has null inside, as tables (Parquet, datasets) have it for fields of other rows, such as the "
            "arguments of another tool; the chat template may write it into the text: take such fields out, or keep "
            "the rows as JSON",
            about="null inside messages",
        )
    try:
        json.dumps(kept, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: holds what JSON does not ({error})") from None
    return kept


def _doubt_text(value: Any, where: str, name: str, *, asked_for: bool) -> None:
    """Refuses messages that are one text, unless their column was asked for; says once of a text that it is JSON."""
    if not isinstance(value, str):
        return
    if name == "messages" and not asked_for:
        raise DataError(
            f"{where}: messages: is a text, where a list of messages is expected; if it is JSON, parse it first "
            '(json.loads); if it is what is to be learnt from, say column="messages"'
        )
    if _CHAT_AS_JSON.match(value):
        say_once(
            f"{where}: {name}: is a chat written as JSON, and is learnt from with all its brackets; parse it first "
            "(json.loads), so that the chat template writes it",
            about="chats written as JSON",
        )


def _doubt_row(row: Mapping[str, Any], where: str) -> None:
    """Says once what stands beside the messages of a chat and changes nothing."""
    for name in ("tools", "chat_template_kwargs"):
        if row.get(name):
            say_once(
                f"{where}: has {name}, which are not given to the chat template", about=f"{name} of chats"
            )


def _holds_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(each is None or _holds_null(each) for each in value.values())
    return isinstance(value, list | tuple) and any(map(_holds_null, value))


def _as_sharegpt(message: Mapping[str, Any]) -> str:
    if not {"from", "value"} <= message.keys():
        return ""
    return (
        "; this one has from and value, as ShareGPT writes them: rename from to role, with user for human and "
        "assistant for gpt, and value to content"
    )


def _kind(value: Any) -> str:
    """The type of a value, and of what is first in a list."""
    of = f" of {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""
    return f"{type(value).__name__}{of}"


def _text(text: str, where: str) -> str:
    """The text. Raises DataError for what no text holds."""
    place = text.find("\0")
    if place >= 0:
        raise DataError(
            f"{where}: has a NUL at character {place:,}: is it a binary file, or one in UTF-16? Convert it, or "
            "leave it out"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: has half a surrogate pair ({text[error.start]!a}) at character {error.start:,}, which is no text"
        ) from None
    return text
