"""Finds the file of a cache, here or elsewhere, and maps it once its structure is checked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decant.cache.errors import FormatError, IncompleteError
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.format.tables import Layout
from decant.cache.io.files import user_path
from decant.cache.io.opening import NotAFileError, open_read
from decant.cache.io.partial import PARTIAL
from decant.cache.placement import Content, Placement
from decant.cache.remote.addresses import is_url
from decant.cache.remote.lazily import LazyCopy, fetch_url, open_lazily
from decant.cache.soundness import Verify


class OpenedFile(NamedTuple):
    """A whole cache file, as `LogitCache` takes it."""

    layout: Layout
    content: Content
    verify: Verify
    lazy: LazyCopy | None = None
    """Where blocks are fetched from that are not there yet."""


def open_file(path: str | os.PathLike[str], verify: Verify, placement: Placement, lazy: bool) -> OpenedFile:
    """The file at a path or an address. Takes and raises what `LogitCache.open` does."""
    if is_url(path):
        return _open_elsewhere(os.fspath(path), verify, placement, lazy)
    path = user_path(path)
    if path.name.endswith(PARTIAL):
        raise IncompleteError(f"{path}: a partial file; run the command that builds it again to finish it")
    try:
        file = open_read(path)
    except (NotAFileError, IsADirectoryError):
        raise FormatError(f"{path}: not a file") from None
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such cache") from None
    with file:
        layout = hdf5.check(file, str(path))
        content = Content(file, layout, path, placement)
        _require_complete(path, layout, content)
        return OpenedFile(layout, content, verify)


def _open_elsewhere(url: str, verify: Verify, placement: Placement, lazy: bool) -> OpenedFile:
    """The file at an address, by its copy in the mirror."""
    if not lazy or verify == "open" or placement == "ram":
        return open_file(fetch_url(url), verify, placement, lazy=False)
    found = open_lazily(url)
    if isinstance(found, Path):
        return open_file(found, verify, placement, lazy=False)
    with found.open() as file:
        layout = hdf5.check(file, found.shown)
        content = Content(file, layout, found.path, "mapped")
        _require_complete(found.path, layout, content)
        return OpenedFile(layout, content, "lazy", found)


def _require_complete(path: Path, layout: Layout, content: Content) -> None:
    """Raises IncompleteError for a file with blocks that are not written."""
    entries = content.array(layout.tables["blocks"])
    if not entries.all():
        missing = np.argwhere(entries == 0)
        raise IncompleteError(
            f"{path}: {len(missing):,} of {entries.size:,} blocks are not written, "
            f"the first is {Blocks(layout).name(*missing[0].tolist())}; it was never published"
        )
