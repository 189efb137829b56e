"""Files elsewhere whose blocks are fetched when they are read: training starts at once.

What is missing of a batch is fetched by a few requests at once, checked and written into the copy in the mirror,
which is mapped. Meanwhile a thread fetches what is asked for next, and then the rest in the order of the file; once
everything is there, the copy gets its own name, and reading is local.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from decant.cache.errors import CacheError
from decant.cache.io.locks import lock_path, shared
from decant.cache.io.opening import is_file, open_read
from decant.cache.remote import mirror
from decant.cache.remote.addresses import Address
from decant.cache.remote.fetching import fetch, is_same, prepare_filling, require_nothing
from decant.cache.remote.filling import Filling
from decant.cache.remote.folder import NoRangesError, RemoteFolder
from decant.cache.remote.opening import open_folder

_AHEAD = 64  # blocks that the thread fetches at a time
_PAUSE = 0.02  # seconds


class LazyCopy:
    """The copy of a file elsewhere, of which a reader has the missing blocks fetched."""

    def __init__(self, url: str, filling: Filling, target: Path) -> None:
        self.url, self.path = url, filling.copy.path
        self._filling, self._target = filling, target
        self._owner = os.getpid()
        self._wanted: deque[int] = deque()
        self._asked: list[None] = []
        self._published = self._begun = self._is_held = False
        self._held = contextlib.ExitStack()
        weakref.finalize(self, _let_go, filling, self._held, self._owner).atexit = False

    def open(self) -> BinaryIO:
        """The copy, to be mapped."""
        return open_read(self.path, follow=False)

    @property
    def shown(self) -> str:
        """The address of the file, for messages."""
        return self._filling.head.shown

    def fill(self, blocks: Sequence[int]) -> None:
        """Fetches blocks that are not in the copy, or wrong there. Raises CacheError."""
        self._asked.append(None)  # the thread waits meanwhile
        try:
            self._filling.fetch(blocks)
        finally:
            self._asked.pop()
            self._begin()

    def fill_table(self, table: str) -> None:
        """Fetches a table that is read as a whole."""
        self._filling.read_table(table)

    def prefetch(self, blocks: Sequence[int]) -> None:
        """Has the thread fetch these blocks next; returns at once."""
        self._wanted.extend(blocks)
        self._begin()

    def settle(self) -> Path | None:
        """Gives the copy its own name once it is whole: that name, when this process first knows of it."""
        if self._published or self._owner != os.getpid():
            return None
        if self.path.exists():
            if not self._filling.copy.is_whole():
                return None
            self._hold()
            self._filling.copy.publish(self._target)
            head = self._filling.head
            mirror.remember_source(self._target, head.shown, head.stat.size, head.stat.tag)
        elif not is_file(self._target, follow=False):
            return None
        self._hold()
        self.path, self._published = self._target, True
        return self._target

    def _hold(self) -> None:
        """Marks the copy as in use by its own name too, until its reader is gone: who opened it knew the other one."""
        if not self._is_held:
            self._held.enter_context(shared(lock_path(self._target)))
            self._is_held = True

    def _begin(self) -> None:
        """Starts the thread, in the process that opened the copy: one that was forked from it asks for its own."""
        if self._begun or self._owner != os.getpid():
            return
        self._begun = True
        ahead = (self._filling, self._wanted, self._asked)
        threading.Thread(target=_fetch_ahead, args=ahead, daemon=True, name="decant-fetching").start()


def open_lazily(url: str) -> LazyCopy | Path:
    """The copy of a file elsewhere, to be filled as it is read; its path where it is whole, or the store sends whole
    files alone. Raises as `fetch` does.
    """
    address = Address.of(url)
    folder, name = folder_and_name(url)
    into = mirror.folder_of(address.folder)
    target = into / name
    try:
        stat = folder.stat(name)
    except CacheError:
        return fetch(folder, name, into)  # which uses the copy that is there, or says why not
    if stat is None or (is_file(target, follow=False) and mirror.source_of(target) == stat[:2]):
        return fetch(folder, name, into)
    mirror.prepare(into)
    try:
        head, entries, path = prepare_filling(folder, name, stat, target, require_nothing)
    except NoRangesError:
        return fetch(folder, name, into)
    if is_same(target, head, entries):
        mirror.remember_source(target, head.shown, stat.size, stat.tag)
        return target
    return LazyCopy(url, Filling(folder, name, head, entries, path), target)


def fetch_url(url: str) -> Path:
    """The path of a whole, checked copy of the file at an address. Raises as `fetch` does."""
    address = Address.of(url)
    folder, name = folder_and_name(url)
    return fetch(folder, name, mirror.folder_of(address.folder))


def folder_and_name(url: str) -> tuple[RemoteFolder, str]:
    """The folder around a file, and the file's name."""
    address = Address.of(url)
    mirror.require_plain(address.name, address.shown)
    return open_folder(address.folder.url), address.name


def _let_go(filling: Filling, held: contextlib.ExitStack, owner: int) -> None:
    """Closes a copy whose reader is gone; in a process that was forked, without the lock of the one that opened it."""
    filling.copy.close()
    if os.getpid() == owner:
        held.close()


def _fetch_ahead(filling: Filling, wanted: deque[int], asked: Sequence[None]) -> None:
    """Fetches what is wanted next, then the other missing blocks, one group after the other; ends where a fetch
    fails, as whoever reads the block learns of that.
    """
    everything = range(filling.blocks.num_blocks)
    with contextlib.suppress(CacheError, OSError, RuntimeError):
        for start in range(0, len(everything), _AHEAD):
            while wanted or asked:
                if asked:  # somebody waits for other blocks
                    time.sleep(_PAUSE)
                    continue
                next_blocks = {wanted.popleft() for _ in range(min(len(wanted), _AHEAD))}
                filling.fetch(filling.copy.missing(sorted(next_blocks)), workers=4)
            if filling.copy.closed:
                return
            filling.fetch(filling.copy.missing(everything[start : start + _AHEAD]), workers=2)
