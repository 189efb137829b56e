"""A folder of this machine, or of a mount, as a folder of caches elsewhere."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from decant.cache.errors import RemoteError
from decant.cache.io.drafts import create_draft, remove_dead_drafts
from decant.cache.io.files import reserve, storage_error, sync_folder, write_all, write_atomically
from decant.cache.io.opening import open_read
from decant.cache.io.partial import publish
from decant.cache.io.system import close_quietly, protect
from decant.cache.remote.folder import ChangedError, Promises, Stat
from decant.cache.remote.progress import Advance

_PIECE = 4 << 20


class LocalFolder:
    """Files in a folder of the file system: a `RemoteFolder`.

    >>> import tempfile
    >>> place = tempfile.TemporaryDirectory()
    >>> folder = LocalFolder(Path(place.name))
    >>> folder.put_small("note", b"rows"), folder.put_small("note", b"others"), folder.names()
    (True, False, {'note': 4})
    >>> folder.read("note", 1, 3)
    b'ow'
    >>> place.cleanup()
    """

    promises = Promises(ranges=True, lists=True, writes=True, conditional=True, notes=True)

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown = str(root)

    def file_shown(self, name: str) -> str:
        return str(self.root / name)

    def names(self) -> dict[str, int]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return {}

    def stat(self, name: str) -> Stat | None:
        try:
            found = os.stat(self.root / name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise RemoteError(f"{self.file_shown(name)}: not a file")
        return Stat(found.st_size, f"{found.st_ino}-{found.st_mtime_ns}")

    def read(self, name: str, first: int, end: int, tag: str = "") -> bytes:
        with open_read(self.root / name) as file:
            self._require_tag(name, tag, os.fstat(file.fileno()))
            file.seek(first)
            content = file.read(end - first)
        if len(content) != end - first:
            raise RemoteError(f"{self.file_shown(name)}: ends before byte {end:,}")
        return content

    def copy_to(self, name: str, write: Callable[[bytes], None], tag: str = "") -> None:
        with open_read(self.root / name) as file:
            self._require_tag(name, tag, os.fstat(file.fileno()))
            while piece := file.read(_PIECE):
                write(piece)

    def put(self, name: str, path: Path, advance: Advance) -> bool:
        target = self.root / name
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_dead_drafts(target)
            draft, fd = create_draft(target)
        except OSError as error:
            raise storage_error(error, target, "publishing") from error
        try:
            with open_read(path) as file:
                reserve(fd, os.fstat(file.fileno()).st_size, target)
                at = 0
                while piece := file.read(_PIECE):
                    write_all(fd, piece, at, target)
                    at += len(piece)
                    advance(len(piece))
            os.fsync(fd)
            protect(fd)
            there = os.path.lexists(target)
            publish(draft, target)  # never in place of another
            sync_folder(self.root)
            return not there and (not draft.exists() or draft.samefile(target))
        except OSError as error:
            raise storage_error(error, target, "publishing") from error
        finally:
            draft.unlink(missing_ok=True)
            close_quietly(fd)

    def put_small(self, name: str, content: bytes, *, replace: bool = False) -> bool:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if replace:
                write_atomically(self.root / name, content)
                return True
            fd = os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise storage_error(error, self.root / name, "writing") from error

    def remove(self, name: str) -> None:
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self.root / name, "removing") from error

    def leftovers(self, older: float, delete: bool) -> list[str]:
        return []  # drafts are removed with the next file of the same name, and by `decant cache gc`

    def _require_tag(self, name: str, tag: str, found: os.stat_result) -> None:
        if tag and tag != f"{found.st_ino}-{found.st_mtime_ns}":
            raise ChangedError(f"{self.file_shown(name)}: was replaced while it was read")
