"""What can be wrong with a cache.

CacheError
├── FormatError            not a cache file, or one whose structure is damaged or not what the format says
│   └── NewerFormatError   written by a later version of the format
├── IncompleteError        a file whose rows are not all written
├── CorruptError           a block whose bytes are not the ones that were written
├── MismatchError          a sound cache, but of another teacher, other data or other views
├── ValueRefusedError      rows that must not be stored: NaN, overflow, a wrong shape, an index twice
└── StorageError           the disk: no space, a failed write or sync, a lock
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """One field in which two identities differ; a side that lacks the field has None."""

    field: str
    expected: object
    found: object

    def __str__(self) -> str:
        return f"{self.field}: expected {shorten(self.expected)}, found {shorten(self.found)}"


class CacheError(Exception):
    """The parent of everything that this package raises about a cache; its text is for a person to read."""


class FormatError(CacheError):
    """Not a cache file, or one whose structure is damaged or not what the format says."""


class NewerFormatError(FormatError):
    """Written by a later version of the format."""


class IncompleteError(CacheError):
    """A file whose rows are not all written."""


class CorruptError(CacheError):
    """A block whose bytes are not the ones that were written."""


class MismatchError(CacheError):
    """A sound cache of something else. `differences` has every field that differs, with both values."""

    def __init__(self, message: str, differences: Sequence[Difference] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.args[0], self.differences)  # a DataLoader worker sends it to its parent


class ValueRefusedError(CacheError):
    """Rows that must not be stored: NaN, overflow, a wrong shape, an index twice."""


class StorageError(CacheError):
    """The disk: no space, a failed write or sync, a lock."""


def shorten(value: object, limit: int = 80) -> str:
    """A value for a message, cut at `limit` characters; None reads as "nothing"."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
