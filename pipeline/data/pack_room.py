"""Whether there is room for a pack, on the disk and in the memory that is to hold its pages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from decant.cache import StorageError
from decant.cache.io.system import allocated_bytes
from decant.pipeline.data.image_pack import partial_path
from decant.pipeline.data.pack_filling import writable_folder

_SHARE = 2  # a pack takes at most a half of the memory, and of the free disk


def require_room(path: Path, size: int) -> None:
    """Raises StorageError where a pack of so many bytes takes more than half of the memory or the free disk."""
    writable_folder(path.parent)
    begun = partial_path(path)
    free = shutil.disk_usage(path.parent).free + (allocated_bytes(begun.stat()) if begun.exists() else 0)
    for room, what in ((_memory(), "the memory"), (free, f"what is free in {path.parent}")):
        if size > room // _SHARE:
            raise StorageError(
                f'{path.name}: {size:,} bytes are more than half of {what}, {room:,} (data.pack = "always" '
                "makes it all the same)"
            )


def fits_in_memory(size: int) -> bool:
    """Whether a pack of so many bytes stays in memory, so that it need not be read from the disk again and again.

    >>> fits_in_memory(4096)
    True
    """
    return size <= _memory() // _SHARE


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
