"""A folder that fsspec reaches. Its libraries differ in what they promise; what counts is checked here or by checksums.

fsspec's own `cat_file` may return fewer or more bytes than asked for, and its listings are kept for a while unless told
otherwise; so lengths are compared, and nothing is taken from a listing that is kept.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from decant.cache.errors import RemoteError
from decant.cache.remote.addresses import Address
from decant.cache.remote.folder import Promises, Stat, attempt, passing
from decant.cache.remote.progress import Advance

UPLOADING = ".uploading"
"""Ends the name of a file that is not whole yet, in a store without conditional writes."""
_PIECE = 8 << 20
_MOST_PARTS = 9_000
_PART_UNIT = 256 << 10  # of which the parts of an upload to Google Cloud Storage are multiples
_AT_ONCE = 4  # parts of an upload

INSTALL = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "hf": ("huggingface_hub", "hub"),
    "memory": ("fsspec", "http"),
}
"""By scheme, the library that it needs and the extra that brings it."""


class FsspecFolder:
    """A folder of any file system of fsspec: a `RemoteFolder`.

    >>> folder = FsspecFolder(Address.of("memory://examples/caches"))
    >>> folder.put_small("note", b"rows"), folder.put_small("note", b"others"), folder.names()
    (True, False, {'note': 4})
    >>> folder.read("note", 1, 3)
    b'ow'
    >>> folder.remove("note")
    """

    promises = Promises(ranges=True, lists=True, writes=True, conditional=False, notes=True)
    options: ClassVar[dict[str, Any]] = {"use_listings_cache": False, "skip_instance_cache": True}

    def __init__(self, address: Address) -> None:
        """Connects to nothing yet. Raises RemoteError where a library is missing."""
        require_library(address)
        self.address, self.shown = address, address.shown
        self.promises = self.promises._replace(conditional=address.scheme in ("memory", "gs", "s3"))
        self._made: dict[int, Any] = {}

    @property
    def fs(self) -> Any:
        """The file system of fsspec, of this process: what was connected before a fork cannot be used after it, nor
        let go, which would close connections of the parent. Threads that ask first at once get the same one: who drops
        another closes its session, in the middle of a request.
        """
        process = os.getpid()
        if process not in self._made:
            self._made.setdefault(process, attempt(self.shown, self._connect))
        return self._made[process]

    def _connect(self) -> Any:
        import fsspec

        options = {} if self.address.scheme == "memory" else self.options
        return fsspec.filesystem(self.address.scheme, **options)

    def file_shown(self, name: str) -> str:
        return self.address.child(name).shown

    def path_of(self, name: str = "") -> str:
        """A file's path as the file system has it."""
        address = self.address.child(name) if name else self.address
        return (
            f"/{address.path}" if address.scheme == "memory" else f"{address.host}/{address.path}".rstrip("/")
        )

    def names(self) -> dict[str, int]:
        try:
            entries = attempt(self.shown, lambda: self.fs.ls(self.path_of(), detail=True, refresh=True))
        except FileNotFoundError:
            self._require_store()
            return {}
        files = (entry for entry in entries if entry["type"] == "file")
        return {entry["name"].rpartition("/")[2]: int(entry["size"] or 0) for entry in files}

    def stat(self, name: str) -> Stat | None:
        try:
            found = attempt(self.file_shown(name), lambda: self.fs.info(self.path_of(name)))
        except FileNotFoundError:
            return None
        return Stat(int(found["size"]), self.tag_of(found)) if found["type"] == "file" else None

    def tag_of(self, found: dict[str, Any]) -> str:
        """What of fsspec's description of a file changes with its content."""
        return str(
            found.get("ETag") or found.get("etag") or found.get("md5Hash") or found.get("created") or ""
        )

    def read(self, name: str, first: int, end: int, tag: str = "") -> bytes:
        def ask() -> bytes:
            content: bytes = self.fetch(name, first, end, tag)
            if len(content) != end - first:
                raise passing(f"sent {len(content):,} of {end - first:,} bytes")
            return content

        return attempt(self.file_shown(name), ask)

    def fetch(self, name: str, first: int, end: int, tag: str) -> bytes:
        """One request for bytes of a file."""
        content: bytes = self.fs.cat_file(self.path_of(name), start=first, end=end)
        return content

    def copy_to(self, name: str, write: Callable[[bytes], None], tag: str = "") -> None:
        found = self.stat(name)
        if found is None:
            raise FileNotFoundError(f"{self.file_shown(name)}: no such file")
        for first in range(0, found.size, _PIECE):
            write(self.read(name, first, min(found.size, first + _PIECE), tag or found.tag))

    def put(self, name: str, path: Path, advance: Advance) -> bool:
        if self.stat(name) is not None:
            return False
        if self.promises.conditional:
            return self._created(name, lambda: self.create(name, path, advance))
        # The order: the whole file under a name that no listing of caches finds, then its name, where none has that.
        draft = f"{name}.{secrets.token_hex(4)}{UPLOADING}"
        attempt(self.file_shown(name), lambda: self.fs.put_file(str(path), self.path_of(draft)))
        advance(path.stat().st_size)
        if self.stat(name) is not None:
            self.remove(draft)
            return False
        attempt(self.file_shown(name), lambda: self.fs.mv(self.path_of(draft), self.path_of(name)))
        return True

    def create(self, name: str, path: Path, advance: Advance) -> None:
        """Uploads a file; fails where one of that name is there."""
        if self.address.scheme == "memory":
            self.fs.pipe_file(self.path_of(name), path.read_bytes(), mode="create")
            return
        from fsspec.callbacks import Callback

        class Told(Callback):  # type: ignore[misc]
            def relative_update(self, inc: int = 1) -> None:
                self.value += inc
                advance(inc)

            def absolute_update(self, value: int) -> None:  # which some libraries call instead
                self.relative_update(value - self.value)

        size = path.stat().st_size
        piece = max(_PIECE, -(-size // _MOST_PARTS // _PART_UNIT) * _PART_UNIT)
        more = {"max_concurrency": _AT_ONCE} if self.address.scheme == "s3" else {}
        self.fs.put_file(
            str(path), self.path_of(name), mode="create", chunksize=piece, callback=Told(size=size), **more
        )

    def _created(self, name: str, create: Callable[[], None]) -> bool:
        """Whether it was this that made the file; False where one is there."""

        def ask() -> bool:
            try:
                create()
                return True
            except Exception:
                with contextlib.suppress(RemoteError):
                    if self.stat(name) is not None:  # libraries say it in many ways
                        return False
                raise

        try:
            return attempt(self.file_shown(name), ask)
        except FileNotFoundError:
            self._require_store()
            raise RemoteError(f"{self.file_shown(name)}: cannot be written: no such folder") from None

    def put_small(self, name: str, content: bytes, *, replace: bool = False) -> bool:
        path = self.path_of(name)
        if replace:
            attempt(self.file_shown(name), lambda: self.fs.pipe_file(path, content))
            return True
        if self.stat(name) is not None:
            return False
        mode = "create" if self.promises.conditional else "overwrite"
        return self._created(name, lambda: self.fs.pipe_file(path, content, mode=mode))

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            attempt(self.file_shown(name), lambda: self.fs.rm_file(self.path_of(name)))

    def leftovers(self, older: float, delete: bool) -> list[str]:
        found = [name for name in self.names() if name.endswith(UPLOADING) and self._age(name) >= older]
        for name in found if delete else ():
            self.remove(name)
        return [self.file_shown(name) for name in found]

    def _age(self, name: str) -> float:
        try:
            since = self.fs.modified(self.path_of(name))
        except (NotImplementedError, FileNotFoundError):
            return 0.0
        since = since if since.tzinfo else since.replace(tzinfo=UTC)
        return float((datetime.now(UTC) - since).total_seconds())

    def _require_store(self) -> None:
        """Raises RemoteError where what should hold the folder is not there."""


def require_library(address: Address) -> None:
    """Raises RemoteError where the library is missing that reaches this address, with the extra that brings it."""
    import importlib.util

    library, extra = INSTALL.get(address.scheme, ("", ""))
    if not library:
        known = ", ".join(f"{scheme}://" for scheme in INSTALL)
        raise RemoteError(
            f"{address.shown}: stores are folders, or begin with {known}; found {address.scheme}://"
        )
    for name in ("fsspec", library):
        if importlib.util.find_spec(name) is None:
            raise RemoteError(
                f"{address.shown}: {name} is not installed; run: pip install 'decant-kd[{extra}]'"
            )
