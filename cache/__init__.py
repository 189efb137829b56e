"""A soft-label cache: one HDF5 file with a teacher's logits for every sample and view, safe to share.

`SoftLabelDataset` needs torch and is imported when it is first asked for; everything else needs only NumPy
and h5py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache.ensemble import Ensemble
from cache.errors import (
    CacheError,
    CorruptError,
    FormatError,
    IncompleteError,
    MismatchError,
    NewerFormatError,
    StorageError,
    ValueRefusedError,
)
from cache.manifest import Manifest
from cache.reader import LogitCache
from cache.store import Store
from cache.writer import LogitCacheWriter

if TYPE_CHECKING:
    from cache.dataset import SoftLabelDataset

__all__ = [
    "CacheError",
    "CorruptError",
    "Ensemble",
    "FormatError",
    "IncompleteError",
    "LogitCache",
    "LogitCacheWriter",
    "Manifest",
    "MismatchError",
    "NewerFormatError",
    "SoftLabelDataset",
    "StorageError",
    "Store",
    "ValueRefusedError",
]


def __getattr__(name: str) -> Any:
    if name == "SoftLabelDataset":
        from cache.dataset import SoftLabelDataset

        return SoftLabelDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
