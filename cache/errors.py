"""Everything that can be wrong with a cache.

CacheError
├── FormatError            not a cache file, or a file whose structure is damaged or breaks a rule of the format
│   └── NewerFormatError   written by a later version of the format
├── IncompleteError        not all rows are written
├── CorruptError           the bytes of a block are not those that were written
│   └── RewrittenError     written to while it was read, and as it was before
├── MismatchError          a sound cache, but of another teacher, other data or other views
├── ValueRefusedError      rows that cannot be stored: NaN, overflow, a wrong shape, an index given twice
└── StorageError           the disk: no space, a failed write or sync, a lock
    └── RemoteError        a store elsewhere: no permission, no such bucket, answers that cannot be right
        └── OfflineError   a store elsewhere that cannot be reached

CacheWarning             likely wrong, and taken as it is; `warnings.simplefilter("ignore", CacheWarning)` silences it

A message names the file, the field, the expected and the found value, and what to run.

>>> import decant
>>> try:
...     decant.LogitCache.open(decant.__file__)
... except decant.CacheError as error:
...     print(f"{type(error).__name__}: {error}")
FormatError: ...: not an HDF5 file, so not a cache
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """One field in which two identities differ; None where one of them lacks the field.

    >>> print(Difference("data.length", 60000, 50000))
    data.length: expected 60000, found 50000
    """

    field: str
    expected: object
    found: object

    def __str__(self) -> str:
        return f"{self.field}: expected {shorten(self.expected)}, found {shorten(self.found)}"


class CacheError(Exception):
    """The parent of all errors about a cache."""


class FormatError(CacheError):
    """Not a cache file, or a file whose structure is damaged or breaks a rule of the format."""


class NewerFormatError(FormatError):
    """Written by a later version of the format."""


class IncompleteError(CacheError):
    """Not all rows are written."""


class CorruptError(CacheError):
    """The bytes of a block are not those that were written."""


class RewrittenError(CorruptError):
    """The file was written to while it was read, and is as it was before: what was read in between may be wrong."""


class MismatchError(CacheError):
    """A sound cache, but of another teacher, other data or other views.

    `differences` holds every field that differs, with both values.
    """

    def __init__(self, message: str, differences: Sequence[Difference] = ()) -> None:
        super().__init__(message)
        self.differences = tuple(differences)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.args[0], self.differences)  # a DataLoader worker sends it to its parent


class ValueRefusedError(CacheError):
    """Rows that cannot be stored: NaN, overflow, a wrong shape, an index given twice."""


class StorageError(CacheError):
    """The disk: no space, a failed write or sync, a lock."""


class RemoteError(StorageError):
    """A store elsewhere: no permission, no such bucket, answers that cannot be right."""


class OfflineError(RemoteError):
    """A store elsewhere that cannot be reached."""


class CacheWarning(UserWarning):
    """Something about a cache that is likely wrong and not certainly so. It is said once, and nothing is refused."""


def warn(text: str) -> None:
    """Warns with CacheWarning, at the line outside this package that called it.

    >>> with warnings.catch_warnings(record=True) as said:
    ...     warnings.simplefilter("always")
    ...     warn("digits.h5: all rows are the same")
    >>> print(said[0].message)
    digits.h5: all rows are the same
    """
    level, frame = 1, sys._getframe()
    # A context manager made by `contextlib` has frames of that module between ours and its user's.
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("decant", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, CacheWarning, stacklevel=level)


def shorten(value: object, limit: int = 80) -> str:
    """A value for a message, cut at `limit` characters; None reads as "nothing"."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
