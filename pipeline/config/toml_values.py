"""What to write in place of a value that TOML does not take, as Python, YAML and shells have it."""

from __future__ import annotations

import json
import re
import tomllib

from decant.cache.io.redaction import redacted

_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)")
_OF_VALUES = ("Invalid value", "Expected newline", "Unclosed array", "Unclosed inline table")
"""What `tomllib` says of a text in which a value may be wrong."""
_WORD = re.compile(r"[^\s,\[\]{}=#\"']+")
_NOTHING = ("none", "null", "nil")
_LONGEST = 80  # of a word that is repeated


def meant(word: str) -> bool | int | float | None:
    """The number or truth value that a word stands for outside of TOML; None for any other word.

    >>> [meant(word) for word in (".05", "05", "5.", "True", "conv")]
    [0.05, 5, 5.0, True, None]
    """
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return None


def written(value: float) -> str:
    """How TOML writes a number or a truth value."""
    return str(value).lower()


def instead(text: str, error: ValueError) -> str:
    """The end of a message: what to write instead of the value at which reading `text` ended; empty where it did not
    end at a value, and where the line holds a secret.

    >>> text = "[teacher]\\nlr = .05  # low"
    >>> try:
    ...     tomllib.loads(text)
    ... except ValueError as error:
    ...     instead(text, error)
    '; for .05 write 0.05'
    """
    place = _PLACE.search(str(error))
    if place is None or not str(error).startswith(_OF_VALUES):
        return ""
    line, column = text.split("\n")[int(place[1]) - 1], int(place[2]) - 1
    for word in _WORD.finditer(line):
        if word.start() <= column <= word.end() and line[: word.start()].rstrip().endswith(("=", ",", "[")):
            if redacted(line) != line:
                return ""
            if line[word.end() :].lstrip()[:1] not in ("", ",", "]", "}", "#"):
                return "; text stands in quotes"
            return _instead_of(word[0])
    return ""


def _instead_of(word: str) -> str:
    if len(word) > _LONGEST or _is_toml(word):
        return ""
    if word.lower() in _NOTHING:
        return f"; TOML has no {word}: leave the key out"
    value = meant(word)
    return f"; for {word} write {json.dumps(word, ensure_ascii=False) if value is None else written(value)}"


def _is_toml(word: str) -> bool:
    try:
        tomllib.loads(f"value = {word}")
    except ValueError:
        return False
    return True
