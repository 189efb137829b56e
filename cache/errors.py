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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decant.cache.manifest import Difference


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
