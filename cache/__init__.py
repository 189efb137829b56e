"""A soft-label cache: one HDF5 file with a teacher's logits for every sample and view, safe to share.

`SoftLabelDataset` needs torch and is imported when it is first asked for; everything else needs only NumPy
and h5py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if __name__ == "cache":  # found by its folder's name, inside the repository
    from decant.folder_names import use_import_package

    use_import_package("cache")

from decant.cache.ensemble import Ensemble
from decant.cache.errors import (
    CacheError,
    CorruptError,
    FormatError,
    IncompleteError,
    MismatchError,
    NewerFormatError,
    StorageError,
    ValueRefusedError,
)
from decant.cache.inputs import CheckInputs, each_input, input_crc32, one_input
from decant.cache.keys import Key, Keys, split_keys
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource, row_chunks
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

if TYPE_CHECKING:
    from decant.cache.dataset import SoftLabelDataset

__all__ = [
    "CacheError",
    "CheckInputs",
    "CorruptError",
    "Ensemble",
    "FormatError",
    "IncompleteError",
    "Key",
    "Keys",
    "LogitCache",
    "LogitCacheWriter",
    "LogitSource",
    "Manifest",
    "MismatchError",
    "NewerFormatError",
    "SoftLabelDataset",
    "StorageError",
    "Store",
    "ValueRefusedError",
    "each_input",
    "input_crc32",
    "one_input",
    "row_chunks",
    "split_keys",
]


def __getattr__(name: str) -> Any:
    if name == "SoftLabelDataset":
        from decant.cache.dataset import SoftLabelDataset

        return SoftLabelDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
