"""The half of a store that lies elsewhere: its files are found and published there, and read from copies in the
mirror.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from decant.cache.errors import CacheError, OfflineError, RemoteError, warn
from decant.cache.io.opening import is_file
from decant.cache.manifest import Manifest
from decant.cache.remote import mirror
from decant.cache.remote.addresses import Address
from decant.cache.remote.building import abandoned, building
from decant.cache.remote.fetching import fetch, require_key
from decant.cache.remote.folder import NoRangesError
from decant.cache.remote.head import read_head
from decant.cache.remote.opening import open_folder
from decant.cache.remote.publishing import publish
from decant.cache.remote.threads import asking

_AT_ONCE = 8  # headers that are read


class Listed(NamedTuple):
    """A file of a store elsewhere.

    >>> from decant.cache import Store
    >>> Listed("toy.h5", 9000, None, "not a cache").manifest is None, Store("memory://examples/team").remote.listed()
    (True, [])
    """

    name: str
    bytes: int
    manifest: Manifest | None
    """None where its header is not that of a cache."""
    problem: str = ""
    """Why not."""


class RemotePart:
    """What `Store` does where its files lie elsewhere.

    >>> part = RemotePart("memory://examples/team")
    >>> part.name, part.names()
    ('memory://examples/team', {})
    """

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises RemoteError for an address that is none, or whose library is missing."""
        self.folder = open_folder(url)
        self.name, self._address = self.folder.shown, Address.of(url)
        self.root = mirror.folder_of(self._address)
        """Where the copies lie."""

    def names(self) -> dict[str, int]:
        """The caches there, and their sizes, by one listing. Raises RemoteError."""
        return {name: size for name, size in sorted(self.folder.names().items()) if name.endswith(".h5")}

    def find(self, usual: str, key: str, digits: str) -> Path | None:
        """The copy of the cache with this key, fetched if need be; None where the store has none. Asks for the usual
        name first, and lists the store where it is not there.
        """
        name = self.locate(usual, digits)
        if name is None:
            return None
        found = fetch(self.folder, name, self.root, require_key(key))
        mirror.mark_unpushed(found, False)  # as of a builder that was killed before it built anything
        return found

    def locate(self, usual: str, digits: str) -> str | None:
        """The name of the file whose name ends with these digits of a key; None where there is none."""
        if self.folder.stat(usual) is not None:
            return usual
        names = self.names() if self.folder.promises.lists else ()
        return min((name for name in names if name.endswith(f"-{digits}.h5")), default=None)

    def url(self, name: str) -> str:
        """The address of a file, with its secrets."""
        return self._address.child(name).url

    def resolve(self, word: str) -> list[str]:
        """The names that fit a file's name or the first digits of a key."""
        if word.endswith(".h5"):
            return [word] if self.folder.stat(word) is not None else []
        if not self.folder.promises.lists:
            return []
        return [name for name in self.names() if word and name[:-3].rpartition("-")[2].startswith(word)]

    def pull(self, name: str, *, check: bool = False) -> Path:
        """A whole, checked copy of a file."""
        return fetch(self.folder, name, self.root, check=check)

    def listed(self) -> list[Listed]:
        """Every cache there, of which the header is read."""
        names = self.names()
        with asking(_AT_ONCE) as pool:
            return list(pool.map(self._look, names, names.values()))

    def look(self, name: str) -> Listed:
        """One cache, of which the header is read. Raises FileNotFoundError."""
        return self._look(name, -1)

    def leftovers(self, older: float, delete: bool) -> list[str]:
        """What killed processes have left there for `older` seconds: unfinished uploads, and notes that they build.
        Removes it where `delete` says so; published caches never.
        """
        if not self.folder.promises.lists:
            return []
        return [*self.folder.leftovers(older, delete), *abandoned(self.folder, delete)]

    def push(self, path: Path) -> bool:
        """Publishes a file of the mirror that its store does not have; whether what is there then has its bytes. Where
        it has others, the file stays marked as one that was not published.
        """
        done = publish(path, self.folder)
        if done.note:
            warn(done.note)
        if done.same:
            mirror.mark_unpushed(path, False)
        return done.same

    def push_pending(self, path: Path) -> None:
        """Publishes a copy that a process built and could not publish any more. What another has published meanwhile
        takes its place, which is said: all who use the store train from one file.
        """
        if mirror.is_unpushed(path):
            try:
                if not self.push(path):
                    fetch(self.folder, path.name, self.root)
            except OfflineError as error:
                warn(f"{error}; {path} is used, and is not published there yet")

    @contextlib.contextmanager
    def building(self, path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
        """Says in the store that this process builds the cache at `path`, and publishes it there at the end."""
        self._require_writes()
        with building(self.folder, path.name, waiting, lambda: self.folder.stat(path.name) is not None):
            if not path.exists():
                mirror.mark_unpushed(path, True)
            try:
                yield
            finally:
                if not is_file(path):
                    mirror.mark_unpushed(path, False)
            if mirror.is_unpushed(path):
                self._push_built(path)

    @contextlib.contextmanager
    def building_part(self, path: Path) -> Iterator[None]:
        """For one of several processes that write the cache at `path` together, and know nothing of each other:
        publishes it in the store at the end, where it is there by then. The mark of one that is not published stays
        with the unfinished file, for whoever completes it.
        """
        self._require_writes()
        if not path.exists():
            mirror.mark_unpushed(path, True)
        yield
        if is_file(path) and mirror.is_unpushed(path):
            self._push_built(path)

    def _push_built(self, path: Path) -> None:
        if not self.push(path):
            warn(
                f"{self.folder.file_shown(path.name)}: another process has published a cache of the same key, "
                f"with other logits; it stays there, and takes the place of {path} when that is next looked for"
            )

    def _require_writes(self) -> None:
        if not self.folder.promises.writes:
            raise RemoteError(
                f"{self.name}: can only be read; name a store that can be written, with --store"
            )

    def _look(self, name: str, size: int) -> Listed:
        try:
            stat = self.folder.stat(name)
            if stat is None:
                raise FileNotFoundError(f"{self.folder.file_shown(name)}: no such cache")
            return Listed(name, stat.size, read_head(self.folder, name, stat).manifest)
        except NoRangesError as error:
            return Listed(name, size, None, str(error))
        except OfflineError:
            raise
        except CacheError as error:
            return Listed(name, size, None, str(error))
        except FileNotFoundError as error:
            if size < 0:
                raise
            return Listed(name, size, None, str(error))


def split(url: str) -> tuple[RemotePart, str]:
    """The store around the file at an address, and the file's name."""
    address = Address.of(url)
    mirror.require_plain(address.name, address.shown)
    return RemotePart(address.folder.url), address.name
