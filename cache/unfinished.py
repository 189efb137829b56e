"""How far the unfinished file of a cache is, as the disk shows it. Nothing is written."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from decant.cache.errors import FormatError
from decant.cache.format.blocks import StoredRows
from decant.cache.format.hdf5 import check
from decant.cache.io.joint import members
from decant.cache.io.locks import in_use
from decant.cache.io.opening import NotAFileError, open_read
from decant.cache.io.partial import begun


class Unfinished(NamedTuple):
    """A cache that is being written, or whose writer has ended before it was complete."""

    running: bool
    """Whether a process is known to write it."""
    rows: int
    """Rows of complete blocks, all views together."""
    total: int
    """Rows that the cache is to have: V·N."""


def find_unfinished(path: Path) -> Unfinished | None:
    """The unfinished file of the cache at `path`; of several the one that a process writes, or else the fullest.

    None where there is none. Raises FormatError where none of several is sound.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter, Manifest
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "toy.h5")
    >>> with LogitCacheWriter(path, Manifest.build(num_samples=100, num_outputs=10)):
    ...     find_unfinished(path)
    Unfinished(running=True, rows=0, total=100)
    >>> folder.cleanup()
    """
    found: list[Unfinished] = []
    damaged: FormatError | None = None
    for partial in begun(path) if path.parent.is_dir() else ():
        try:
            with open_read(partial, follow=False) as file:
                layout = check(file, str(partial))
                stored = StoredRows(file.fileno(), layout, partial)
                rows = stored.blocks.count_samples(stored.read_entries())
                total = layout.manifest.num_views * layout.manifest.num_samples
                found.append(Unfinished(in_use(file.fileno()), rows, total))
        except FormatError as error:
            damaged = type(error)(f"{error}; delete it and run the command again")
        except (FileNotFoundError, PermissionError, NotAFileError):  # just finished, or another person's
            continue
    if not found and damaged is not None:
        raise damaged
    return max(found, default=None)


def has_writers(path: Path) -> bool:
    """Whether a process is known to write an unfinished file of the cache at `path`, or that cannot be told.

    >>> has_writers(Path("no/such/folder/digits.h5"))
    False
    """
    for partial in begun(path) if path.parent.is_dir() else ():
        with contextlib.suppress(OSError), open_read(partial, follow=False) as file:
            if in_use(file.fileno()) or any(found.living is not False for found in members(partial)):
                return True
    return False
