"""A directory of caches that experiments share: find one by its key, build it once."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from decant.cache.errors import CacheError, MismatchError
from decant.cache.io.files import storage_error, user_path
from decant.cache.io.locks import exclusive, lock_path
from decant.cache.io.opening import is_file
from decant.cache.io.partial import finish_publishing
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.remote.addresses import is_url
from decant.cache.store.remote import Listed, RemotePart, split

SUFFIX = ".h5"
_KEY_DIGITS = 16  # of the key's 64, in a file's name; the whole key is checked when the file is opened


class Store:
    """A directory of published caches, named DATA-SPLIT-NETWORK-KEY.h5 and never changed: here, or elsewhere, with
    copies here of the files that were used.

    >>> import tempfile, numpy as np
    >>> from decant.cache import import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = Store(folder.name)
    >>> path = import_logits(store, 3 * np.eye(2, dtype="f4"), None, teacher={"network": "vgg8"}, data={"name": "toy"})
    >>> path.name, store.resolve(path.stem[-16:]) == path
    ('toy-vgg8-76b842059c37882c.h5', True)
    >>> store.find(LogitCache.open(path).manifest) == path
    True
    >>> folder.cleanup()
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        """`root`: a folder, or an address as `s3://bucket/caches`; defaults to $DECANT_STORE, then to "caches". Of an
        address nothing is asked yet. Raises RemoteError where it is none, or a library is missing.
        """
        given = os.fspath(root or os.environ.get("DECANT_STORE") or "caches")
        self.remote = RemotePart(given) if is_url(given) and not given.lower().startswith("file://") else None
        """The half that lies elsewhere; None for a folder."""
        self.root = user_path(given.removeprefix("file://")) if self.remote is None else self.remote.root
        """The folder; for a store elsewhere that of its copies here."""
        self.name = str(self.root) if self.remote is None else self.remote.name
        """The folder or the address, for messages."""

    def path(self, manifest: Manifest) -> Path:
        """Where the cache with this manifest lies or will lie."""
        data, teacher = manifest.identity["data"], manifest.identity["teacher"]
        network = teacher.get("network") or {}
        words = (
            data.get("name"),
            data.get("split"),
            network.get("name") if isinstance(network, dict) else network,
        )
        readable = "-".join(_plain(str(word)) for word in words if word)
        return self.root / f"{readable or 'cache'}-{manifest.key[:_KEY_DIGITS]}{SUFFIX}"

    def find(self, manifest: Manifest) -> Path | None:
        """The published file with the key of `manifest`, whatever the rest of its name; None where there is none.

        Removes what a builder left behind that was killed just after publishing the file. In a store elsewhere it is
        looked for there, and fetched, if no copy is here. Raises RemoteError, CacheError where what is fetched is not
        right.
        """
        found = self.published(manifest)
        if found:
            finish_publishing(found)
            if self.remote:
                self.remote.push_pending(found)
        elif self.remote:
            found = self.remote.find(self.path(manifest).name, manifest.key, manifest.key[:_KEY_DIGITS])
        return found

    def locate(self, manifest: Manifest) -> Path | str | None:
        """As `find`, but fetches nothing: the address of a file that lies elsewhere and has no copy here."""
        if self.remote is None or self.published(manifest):
            return self.find(manifest)
        name = self.remote.locate(self.path(manifest).name, manifest.key[:_KEY_DIGITS])
        return None if name is None else self.remote.url(name)

    def published(self, manifest: Manifest) -> Path | None:
        """As `find`, but removes nothing. Of several the one with the whole name; what is no file is none."""
        found = [path for path in self.root.glob(f"*-{manifest.key[:_KEY_DIGITS]}{SUFFIX}") if path.is_file()]
        usual = self.path(manifest)
        return usual if usual in found else min(found, default=None)

    def paths(self) -> list[Path]:
        """Every published file, by name; of a store elsewhere those that have a copy here."""
        return sorted(self.root.glob(f"*{SUFFIX}"))

    def with_other_views(self, manifest: Manifest) -> list[Path]:
        """Published files whose identity differs in the number of views alone, those with most views first."""
        found = []
        for path in self.paths():
            try:
                other = LogitCache.open(path, verify="off").manifest
            except (CacheError, OSError):
                continue
            if (
                other.num_views != manifest.num_views
                and other.with_views(manifest.num_views).key == manifest.key
            ):
                found.append((-other.num_views, path))
        return [path for _, path in sorted(found)]

    def resolve(self, name: str | os.PathLike[str]) -> Path:
        """The path of a cache from its path, its file's name in the store, or the first digits of its key.

        Raises FileNotFoundError where there is none, MismatchError where several fit. What lies elsewhere, by its own
        address or in this store, is fetched: raises RemoteError, CacheError.
        """
        if is_url(name):
            part, file = split(os.fspath(name))
            return part.pull(file)
        found = self._resolve_here(name)
        if found is None and self.remote:
            found = self.remote.pull(self._only(name, self.remote.resolve(str(name))))
        return found or self.root / self._only(name, [])

    def pull(self, name: str) -> Path:
        """As `resolve`, but what lies elsewhere is looked up there, also where a copy is here, whose every block is
        then checked: fetches what is new or damaged.
        """
        if is_url(name):
            part, file = split(name)
            return part.pull(file, check=True)
        if self.remote is None:
            return self.resolve(name)
        return self.remote.pull(self._only(name, self.remote.resolve(name)), check=True)

    def look(self, name: str | os.PathLike[str]) -> Listed | None:
        """What the header says of a cache that lies elsewhere and has no copy here; None where a file is here. Raises
        as
        `resolve` does.
        """
        if is_url(name):
            part, file = split(os.fspath(name))
            return None if is_file(part.root / file) else part.look(file)
        if self._resolve_here(name) is not None or self.remote is None:
            return None
        return self.remote.look(self._only(name, self.remote.resolve(str(name))))

    def _resolve_here(self, name: str | os.PathLike[str]) -> Path | None:
        """The path of a file here, by what `resolve` takes. Raises MismatchError."""
        for path in (Path(name), self.root / name):
            if path.is_file():
                return path
        word = str(name)
        found = (
            [path for path in self.paths() if path.stem.rpartition("-")[2].startswith(word)] if word else []
        )
        return Path(self._only(word, [str(path) for path in found])) if found else None

    def _only(self, word: str | os.PathLike[str], found: list[str]) -> str:
        """The one name that fits. Raises FileNotFoundError, MismatchError."""
        if len(found) > 1:
            raise MismatchError(f"{word}: fits {len(found)} caches of {self.name}: " + ", ".join(found))
        if not found and os.path.isdir(word):
            raise FileNotFoundError(f"{word}: is a folder; name a cache in it, or give the folder as --store")
        if not found:
            raise FileNotFoundError(
                f"{word}: no such file, and the store {self.name} has no cache of that name or key"
            )
        return found[0]

    def prepare(self) -> None:
        """Makes the folder where there is none. Raises StorageError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.root, "making the folder") from error

    @contextlib.contextmanager
    def building(
        self, manifest: Manifest, waiting: Callable[[str], None] = lambda holder: None
    ) -> Iterator[Path]:
        """Excludes other builders of this cache until the end; yields the path to publish at.

        While another process builds it, calls `waiting` once with the name of that process, and waits for it. Call
        `find` again inside: the other may have finished. What is built for a store elsewhere is published there at the
        end. Raises StorageError where the folder cannot be written.
        """
        path = self.path(manifest)
        self.prepare()
        with exclusive(lock_path(path), waiting):
            if self.remote is None:
                yield path
                return
            with self.remote.building(path, waiting):
                yield path

    @contextlib.contextmanager
    def joining(self, manifest: Manifest, waiting: Callable[[str], None] | None = None) -> Iterator[Path]:
        """As `building`, but excludes nobody: for processes that write the file together, in a folder that all of them
        see. Of a store elsewhere that is the folder of its copies here; whoever publishes the file there publishes it
        in the store at the end.

        waiting: given where one process speaks for all of them. It says in a store elsewhere that it builds, and waits
        for others who do, as `building` does.
        """
        path = self.path(manifest)
        self.prepare()
        if self.remote is None:
            yield path
        elif waiting is None:
            with self.remote.building_part(path):
                yield path
        else:
            with self.remote.building(path, waiting):
                yield path


def _plain(word: str) -> str:
    """A word with only the characters that file names may have on every system."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", word).strip("-.")[:40]
