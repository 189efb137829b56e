"""Reading and writing files so that a reader finds them whole, whatever happens to the writer.

Small files go through `write_atomically`, large ones through `replacing`. Files that are written in place, block by
block, are in `decant.cache.io.blockfile`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from decant.cache.errors import StorageError
from decant.cache.io.drafts import DRAFT, create_draft, draft_name, remove_dead_drafts
from decant.cache.io.system import allocated_bytes, close_quietly, forget_read, pread, pwrite

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.ESTALE, errno.EROFS)
_NOTHING_TO_SYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM)
"""What file systems, or what keeps a process from them, say of syncing a folder where that means nothing to them."""
_ELSEWHERE = "name a folder that can be written, with --runs or --store"


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes a file of `content`, in place of the one that is there: a reader finds the old content or the new.

    Makes the folder if need be. Raises OSError where the file cannot be written; `path` is then as it was.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "runs", "result.json")
    >>> write_atomically(path, b"{}")
    >>> path.read_bytes()
    b'{}'
    >>> folder.cleanup()
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yields a draft beside `path`, open to be written and read; then syncs it and gives it the name `path`, in one
    step. A link of that name is replaced; what it leads to is not touched. Drafts of `path` that killed processes have
    left are removed.

    Where the body raises, or the sync fails, the draft is removed and `path` is as it was. Raises OSError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "logits.npy")
    >>> with replacing(path) as draft:
    ...     print(draft.write(b"rows"), path.exists())
    4 False
    >>> [(found.name, found.read_bytes()) for found in path.parent.iterdir()]
    [('logits.npy', b'rows')]
    >>> folder.cleanup()
    """
    remove_dead_drafts(path)
    locked = -1
    try:
        name, fd = create_draft(path)
        with _named_at_the_end(name, path), os.fdopen(fd, "r+b") as draft:
            if os.name != "nt":  # where an open file cannot be renamed
                locked = os.dup(fd)
            yield draft
            draft.flush()
            os.fsync(draft.fileno())
    except OSError as error:
        name_file(error, path)
        raise
    finally:
        if locked >= 0:
            close_quietly(locked)


@contextlib.contextmanager
def drafting(path: Path) -> Iterator[Path]:
    """As `replacing`, but yields the draft's name, which nobody can guess, for what creates the file itself. The body
    must refuse a name that is taken, as `create_new` does, and sync the file.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "digits.h5")
    >>> with drafting(path) as draft, open(draft, "x") as file:
    ...     os.fsync(file.fileno())
    >>> path.stat().st_size
    0
    >>> folder.cleanup()
    """
    draft = draft_name(path)
    with _named_at_the_end(draft, path):
        yield draft


@contextlib.contextmanager
def _named_at_the_end(draft: Path, path: Path) -> Iterator[None]:
    """Gives a draft the name `path` at the end, or removes it."""
    try:
        yield
        os.replace(draft, path)
    except OSError as error:
        name_file(error, path)
        raise
    finally:
        draft.unlink(missing_ok=True)


def name_file(error: OSError, path: Path) -> None:
    """Adds a file name to an error that has none, as on a full disk: the name of the file that was to be written,
    not of its draft.

    >>> error = OSError(errno.ENOSPC, "No space left on device")
    >>> name_file(error, Path("result.json"))
    >>> print(error)
    [Errno 28] No space left on device: 'result.json'
    """
    if error.errno is not None and (error.filename is None or str(error.filename).endswith(DRAFT)):
        error.filename = str(path)
        del error.filename2  # None would be shown as a second name


def reserve(fd: int, size: int, path: Path) -> None:
    """Makes sure that all `size` bytes of the file can be written, before any work is spent on them.

    fd: the open file, which then has `size` bytes; what is written in it stays. path: its name, for messages. Raises
    StorageError when the disk lacks the room. Where the system cannot reserve (macOS, some network mounts), or does not
    let this process (some containers), the free space is compared instead.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     reserve(file.fileno(), 1 << 60, Path(file.name))  # doctest: +ELLIPSIS, +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
        ...
    StorageError: ... free ...
    """
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
            return
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise storage_error(error, path, f"reserving {size:,} bytes") from error
    held = allocated_bytes(os.fstat(fd))
    free = shutil.disk_usage(path.parent).free
    if size - held > free:
        raise StorageError(
            f"{path}: needs {size:,} bytes, {free:,} are free on its disk; free some and run it again"
        )


def write_all(fd: int, data: bytes | memoryview, offset: int, path: Path) -> None:
    """Writes every byte of `data` from byte `offset` of the open file on; `pwrite` may stop early.

    Raises StorageError, naming `path`, on a full disk or a failed write.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     write_all(file.fileno(), b"rows", 2, Path(file.name))
    ...     read_all(file.fileno(), 10, 0, Path(file.name))
    b'\\x00\\x00rows'
    """
    view = memoryview(data).cast("B")
    while view:
        try:
            done = pwrite(fd, view, offset)
            if not done:  # no error, and no end: it would be tried for ever
                raise OSError(errno.EIO, "the system has taken none of it")
        except OSError as error:
            raise storage_error(error, path, "writing") from error
        view, offset = view[done:], offset + done


def read_all(fd: int, count: int, offset: int, path: Path) -> bytes:
    """Reads `count` bytes from byte `offset` of the open file on, fewer only at its end.

    Raises StorageError, naming `path`, on a failed read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     read_all(file.fileno(), 10, 0, Path(file.name))
    b''
    """
    parts = []
    while count:
        try:
            part = pread(fd, count, offset)
        except OSError as error:
            raise storage_error(error, path, "reading") from error
        if not part:
            break
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


def close_written(fd: int, path: Path) -> None:
    """Closes a file that was written. Raises StorageError where its disk says only then, as network mounts and quotas
    do, that it did not take what was written; the descriptor is closed all the same.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     close_written(os.dup(file.fileno()), Path(file.name))
    """
    try:
        os.close(fd)
    except OSError as error:
        raise storage_error(error, path, "closing") from error


def sync_or_drop(fd: int, path: Path) -> None:
    """Makes durable what was written to an open file. Raises StorageError where that fails, and then removes the file:
    after a failed sync nobody knows which pages are on the disk, and a second one would not tell.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     sync_or_drop(file.fileno(), Path(file.name))
    """
    try:
        os.fsync(fd)
    except OSError as error:
        with contextlib.suppress(OSError):  # a disk that fails may often only be read from then on
            path.unlink(missing_ok=True)
        forget_read(fd)  # so that whoever reads it all the same finds what is there
        doing = "syncing; what was written cannot be trusted and is dropped"
        raise storage_error(error, path, doing) from error


def sync_folder(folder: Path) -> None:
    """Makes new names in `folder`, as of files that were renamed, durable. Raises StorageError where that fails.

    >>> sync_folder(Path("."))
    """
    if os.name == "nt":  # where a folder cannot be opened
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in _NOTHING_TO_SYNC:
            raise storage_error(error, folder, "syncing the folder") from error


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user writes it: `~` is the home folder, unless a file of that name is here.

    >>> user_path("~/caches/digits.h5") == Path.home() / "caches" / "digits.h5"
    True
    """
    given = Path(path)
    if not given.parts[:1] or not given.parts[0].startswith("~") or os.path.lexists(given.parts[0]):
        return given
    with contextlib.suppress(RuntimeError):  # there is no such user
        return given.expanduser()
    return given


def storage_error(error: OSError, path: Path, doing: str) -> StorageError:
    """An error of the disk as one that names the file, what was being done, and what to do about it.

    >>> full = OSError(errno.ENOSPC, "No space left on device")
    >>> print(storage_error(full, Path("digits.h5"), "writing"))
    digits.h5: writing: No space left on device; free some space and run the same command again, it goes on from here
    """
    why, what_to_do = error.strerror or str(error), remedy(error, path)
    return StorageError(f"{path}: {doing}: {why}" + (f"; {what_to_do}" if what_to_do else ""))


def remedy(error: OSError, path: Path | None = None) -> str | None:
    """What to do about a disk that does not take what is written to `path`; None for another error.

    >>> remedy(OSError(errno.EROFS, "Read-only file system"))
    'name a folder that can be written, with --runs or --store'
    """
    again = "and run the same command again, it goes on from here"
    if error.errno == errno.ENOSPC and path is not None and not _has_inodes(path):
        return f"the disk has room for no more files: remove some {again}"
    if error.errno in (errno.EACCES, errno.EPERM) and path is not None:
        if is_closed(path):
            return "another user made it for that user alone, as with umask 077: have that one chmod a+r it"
        if not _takes_files(path):
            return _ELSEWHERE
    return {
        errno.ENOSPC: f"free some space {again}",
        errno.EDQUOT: f"that is your quota: free some space {again}",
        errno.EMFILE: f"that is the limit of ulimit -n: raise it {again}",
        errno.ENFILE: f"that is the limit of this machine (fs.file-max): end other programs {again}",
        errno.EFBIG: f"that is the limit of ulimit -f, or of the disk: raise it {again}",
        errno.ENAMETOOLONG: "give it a shorter name, or a folder that is less deep: most systems take 255 bytes of a "
        "name and 4,096 of a path, and a file has up to 60 more in its name while it is written",
        errno.EROFS: _ELSEWHERE,
        errno.ENOTDIR: f"a file has the name of a folder that is needed: {_ELSEWHERE}",
        errno.EEXIST: f"a file has the name of a folder that is needed: {_ELSEWHERE}",
        errno.EIO: f"the disk, or the connection to it, fails: see the system's log, {again}",
        errno.ESTALE: "another machine has removed or replaced it, or its server was started anew: run the same "
        "command again, it goes on from here",
    }.get(error.errno or 0)


def is_closed(path: Path) -> bool:
    """Whether a file of this name is another user's who lets this one not read it.

    >>> is_closed(Path("no/such/file"))
    False
    """
    try:
        owner = path.stat().st_uid
    except OSError:
        return False
    return hasattr(os, "geteuid") and owner != os.geteuid() and not os.access(path, os.R_OK)


def _folder_of(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    return next((folder for folder in path.absolute().parents if folder.is_dir()), Path("/"))


def _takes_files(path: Path) -> bool:
    """Whether this user may write to the folder of `path`."""
    return os.access(_folder_of(path), os.W_OK)


def _has_inodes(path: Path) -> bool:
    """Whether the disk of `path` takes another file; True where that is not known."""
    try:
        found = os.statvfs(_folder_of(path))
    except (OSError, AttributeError):
        return True
    return not found.f_files or found.f_favail > 0
