"""Files from here into a store: verified first, visible there in one step, looked at again after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from decant.cache.errors import CacheError, CorruptError, FormatError, MismatchError, RemoteError
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.format.shared_tables import check_shared_tables
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.files import read_all
from decant.cache.io.opening import open_read
from decant.cache.io.system import pread
from decant.cache.manifest import Manifest
from decant.cache.remote.card import with_cache
from decant.cache.remote.folder import NoRangesError, RemoteFolder, Stat
from decant.cache.remote.head import read_entries, read_head
from decant.cache.remote.hub import HubFolder
from decant.cache.remote.mirror import require_plain
from decant.cache.remote.opening import open_folder
from decant.cache.remote.progress import transfer


class Published(NamedTuple):
    """What came of publishing a file.

    >>> Published("s3://team/caches/toy.h5", made=False, same=True).note is None  # it was there before
    True
    """

    shown: str
    """Its address, without secrets."""
    made: bool
    """False where it was there before."""
    same: bool
    """Whether what is there has the very bytes of the file; else another teacher's pass with the same key was first,
    and its file stays."""
    note: str | None = None
    """What is to be said besides."""


def push_cache(path: str | os.PathLike[str], store: str | os.PathLike[str]) -> Published:
    """Publishes the cache at `path` in a store: a folder, or an address as `s3://bucket/caches` or
    `hf://datasets/OWNER/NAME`. Every block is checked first; no other file is ever replaced.

    Raises CorruptError where the file is damaged, MismatchError where a cache of another identity has that name there,
    RemoteError, StorageError.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter
    >>> folder = tempfile.TemporaryDirectory()
    >>> with LogitCacheWriter(f"{folder.name}/toy.h5", Manifest.build(num_samples=1, num_outputs=2)) as writer:
    ...     writer.write([0], [[0.5, 0.25]])
    ...     path = writer.publish()
    >>> push_cache(path, f"{folder.name}/store").made, push_cache(path, f"{folder.name}/store").made
    (True, False)
    >>> folder.cleanup()
    """
    return publish(Path(path), open_folder(store))


def publish(path: Path, folder: RemoteFolder, name: str | None = None) -> Published:
    """Publishes the cache at `path` in a folder elsewhere, under its own name: no other file is ever replaced.

    Raises CorruptError where the file is damaged, MismatchError where a cache of another identity has that name there,
    RemoteError.
    """
    name = name or path.name
    shown = folder.file_shown(name)
    require_plain(name, shown)
    if not folder.promises.writes:
        raise RemoteError(f"{folder.shown}: can only be read; publish to s3://, gs://, hf:// or a folder")
    manifest, size = _verified(path)
    stat, made = folder.stat(name), False
    if stat is None:
        with transfer(f"publishing {name}", size) as advance:
            made = folder.put(name, path, advance)
        stat = folder.stat(name)
        if stat is None:
            raise RemoteError(f"{shown}: is not there after it was published; run the same command again")
    same = _same(path, manifest, folder, name, stat)
    if made and not same:
        raise RemoteError(f"{shown}: is not what was published there: another program has replaced it")
    note = _write_card(folder, name, manifest, size) if isinstance(folder, HubFolder) else None
    return Published(shown, made, same, note)


def _verified(path: Path) -> tuple[Manifest, int]:
    """The manifest and size of a file in which every block is right."""
    with open_read(path) as file:
        layout = hdf5.check(file, str(path))
        try:
            check_shared_tables(layout, lambda first, end: read_all(file.fileno(), end - first, first, path))
        except FormatError as error:
            raise CorruptError(f"{path}: {error}; nothing was published") from None
        blocks = Blocks(layout)
        checks = BlockChecks(blocks, lambda first, end: pread(file.fileno(), end - first, first))
        damaged = checks.check_all()
        if damaged or not checks.entries.all():
            number = damaged[0] if damaged else int(np.flatnonzero(checks.entries == 0)[0])
            name = blocks.name(*divmod(number, blocks.per_view))
            raise CorruptError(f"{path}: {name} is not as it was written; nothing was published")
        return layout.manifest, layout.size


def _same(path: Path, manifest: Manifest, folder: RemoteFolder, name: str, stat: Stat) -> bool:
    """Whether the file elsewhere has the header and the checksums of the one at `path`."""
    try:
        head = read_head(folder, name, stat)
    except NoRangesError:
        return stat.size == path.stat().st_size
    if head.manifest.key != manifest.key:
        raise MismatchError(
            f"{head.shown}: has that name and another key: expected {manifest.key}, found {head.manifest.key}; give "
            "the file another name"
        )
    if head.stat.size != path.stat().st_size:
        return False
    with open_read(path) as file:
        here = pread(file.fileno(), len(head.header), 0)
        first = head.blocks.entries_offset
        entries = pread(file.fileno(), 8 * head.blocks.num_blocks, first)
        return here == head.header and entries == read_entries(folder, name, head).tobytes()


def _write_card(folder: HubFolder, name: str, manifest: Manifest, size: int) -> str | None:
    """Adds the cache to the README of its dataset; what is to be said where that is another's."""
    try:
        before = folder.card()
        text = with_cache(before, folder.address.shown, name, manifest, size)
        if text is None:
            return f"{folder.shown}: its README.md is not one that decant made, and stays as it is"
        if text != before:
            folder.put_card(text)
    except CacheError as error:
        return f"{folder.shown}: the cache is published, and README.md could not be written: {error}"
    return None
