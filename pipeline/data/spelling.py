"""Names of classes that differ in how they are written alone: in capitals, spaces, or Unicode's forms of a letter."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def hint_of_spelling(missing: Iterable[str], more: Iterable[str]) -> str:
    """What to do where a name that one part lacks is one that another has too many, but for its spelling; else nothing.

    >>> hint_of_spelling(["cat", "dog"], ["Cat", "fox"])
    "; 'cat' and 'Cat' differ in capitals or spaces alone: give both folders one name"
    >>> hint_of_spelling(["dog"], ["fox"])
    ''
    """
    by_key = {_key(name): name for name in more}
    for name in missing:
        other = by_key.get(_key(name))
        if other is None:
            continue
        if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other):
            return (
                f"; {name!a} and {other!a} are one name in two forms of Unicode (NFC and NFD, which archives "
                "made on macOS may have): give both folders one form"
            )
        return f"; {name!r} and {other!r} differ in capitals or spaces alone: give both folders one name"
    return ""


def written_alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two of some names that differ in how they are written alone.

    >>> written_alike(["cat", "dog", "Cat"])
    ('cat', 'Cat')
    """
    by_key = dict[str, str]()
    for name in names:
        if (other := by_key.setdefault(_key(name), name)) != name:
            return other, name
    return None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()
