"""The names of parts: which folder or file is the training or the test part, and names in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.data.samples import Split
from decant.pipeline.support.notices import say_once

TEST_NAMES = ("test", "val", "valid", "validation")
"""The folders that networks are measured on, the first that is there."""
_MOST_NAMED = 5


def part_names(settings: DataSettings, split: Split) -> tuple[str, ...]:
    """The names that a part may have, the first that is there being taken."""
    if split != "test":
        return (split,)
    if settings.test is not None:
        return (settings.test,)
    others = [own.part for own in (settings.transfer, settings.validation) if own is not None]
    return tuple(name for name in TEST_NAMES if name not in others)


def say_unused(root: Path, there: Sequence[str]) -> None:
    """Says once which of several test parts networks are measured on, and that the others are not used."""
    if len(there) > 1:
        say_once(
            f"{root}: networks are measured on {there[0]}; {listed(there[1:])} {'is' if len(there) == 2 else 'are'} "
            f'not used (data.test = "{there[1]}" measures on that)'
        )


def listed(names: Iterable[str]) -> str:
    """Names in a message: the first of many.

    >>> listed("abcdefgh")
    'a, b, c, d, e, … (8)'
    """
    names = list(names)
    more = f", … ({len(names):,})" if len(names) > _MOST_NAMED else ""
    return f"{', '.join(names[:_MOST_NAMED])}{more}"
