"""Names of a file in a message: on one line, not too long, and nothing that a terminal would act on."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 100


def shown(name: object) -> str:
    """A name from a file, with its unprintable characters escaped.

    >>> shown("layer\\n1")
    'layer\\\\n1'
    """
    text = str(name)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def listed(names: Iterable[object], most: int) -> str:
    """At most so many names, and how many more there are.

    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    every = [shown(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most:,} more" if len(every) > most else "")
