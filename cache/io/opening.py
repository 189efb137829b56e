"""Opening files in folders that others may write to as well.

What is opened is a regular file, or it is refused: opening a pipe would wait for ever, opening a device may do
something. What is opened to be written is the file of that name itself, never one that a link leads to, and it has no
second name: a link in a shared folder would have us empty, overwrite or extend a file elsewhere.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO

from decant.cache.io.system import CLOEXEC

_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_AT_ONCE: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_NEW_FILE = 0o666
"""The permissions of a new file, of which the process's umask takes away."""

_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


MOST_BYTES = 512 << 20
"""Of a file that is read whole, if nothing else is said. A file of holes alone may say that it has any number."""
_AT_ONCE_BYTES = 32 << 20
"""Of a file that lies in memory while it is used: several threads may have one each."""


class NotAFileError(OSError):
    """What has the name of a file is none: a pipe, a socket, a device, a link where none is followed, or more bytes
    than such a file has.
    """


def open_read(path: Path, *, follow: bool = True) -> io.BufferedReader:
    """Opens a regular file to read its bytes; never waits.

    follow: whether the file may be at the end of a link, as data of a user's may. Raises NotAFileError,
    IsADirectoryError and any other OSError of opening it.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "logits.npy")
    >>> os.mkfifo(path)
    >>> try:
    ...     open_read(path)
    ... except NotAFileError as error:
    ...     print(error.strerror)
    a pipe, where a file is expected
    >>> folder.cleanup()
    """
    return os.fdopen(_open(path, os.O_RDONLY, follow=follow), "rb")


def open_at_once(path: Path) -> IO[bytes]:
    """The same as `open_read`, for a file that is read whole: of at most 32 MiB, the bytes that it has now are read in
    one call, and lie in memory. Each call to the system lets go of the interpreter's lock, which threads that do the
    same beside this one then queue for.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as named:
    ...     Path(named.name).write_bytes(b"pixels")
    ...     with open_at_once(Path(named.name)) as file:
    ...         file.read()
    6
    b'pixels'
    """
    fd = _open(path, os.O_RDONLY, follow=True)
    try:
        size = os.fstat(fd).st_size
        if size > _AT_ONCE_BYTES:
            return os.fdopen(os.dup(fd), "rb")
        content = os.read(fd, size)
        while len(content) < size and (more := os.read(fd, size - len(content))):
            content += more
        return io.BytesIO(content)
    finally:
        os.close(fd)


def read_file(path: Path, *, follow: bool = True, most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file. Takes and raises what `open_read` does, and NotAFileError where there are more than
    `most`.

    >>> read_file(Path("no/such/file"))
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'no/such/file'
    """
    with open_read(path, follow=follow) as file:
        _require_size(file, path, most)
        return file.read()


def read_start(path: Path, count: int) -> bytes:
    """The first `count` bytes of a regular file, fewer where it has fewer; links are not followed. Raises as
    `open_read` does.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"rows"), file.flush()
    ...     read_start(Path(file.name), 2)
    b'ro'
    """
    with open_read(path, follow=False) as file:
        return file.read(count)


def read_text(path: Path, encoding: str = "utf-8", *, most: int = MOST_BYTES) -> str:
    """The text of a regular file, each end of a line as a line feed. Raises UnicodeDecodeError, and what `read_file`
    does.

    >>> read_text(Path(os.devnull))
    Traceback (most recent call last):
        ...
    decant.cache.io.opening.NotAFileError: [Errno 22] a device, where a file is expected: '/dev/null'
    """
    with open_read(path) as file:
        _require_size(file, path, most)
        return io.TextIOWrapper(file, encoding).read()


def require_file(path: Path, *, follow: bool = True) -> None:
    """Raises what `open_read` would raise, for what opens the file itself by its path.

    >>> require_file(Path("."))
    Traceback (most recent call last):
        ...
    IsADirectoryError: [Errno 21] Is a directory: '.'
    """
    open_read(path, follow=follow).close()


def is_file(path: Path, *, follow: bool = True) -> bool:
    """Whether there is a regular file at `path` now; False as well where that cannot be told.

    >>> is_file(Path(os.devnull))
    False
    """
    try:
        return stat.S_ISREG((os.stat if follow else os.lstat)(path).st_mode)
    except (OSError, ValueError):
        return False


def create_new(path: Path) -> int:
    """Creates a file and opens it to read and write; nothing may have its name, not even a link that leads nowhere.

    Its permissions are what the process's umask leaves. Raises FileExistsError, OSError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "draft")
    >>> path.symlink_to(Path(folder.name, "elsewhere"))
    >>> create_new(path)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
        ...
    FileExistsError: …
    >>> folder.cleanup()
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | CLOEXEC, _NEW_FILE)


def open_write(path: Path, *, create: bool = False) -> int:
    """Opens a file to read it and to write it in place; links are not followed.

    create: makes it where there is none. Raises NotAFileError for a link, for what is no file, and for a file that has
    a second name; IsADirectoryError, FileNotFoundError and any other OSError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> elsewhere, path = Path(folder.name, "elsewhere"), Path(folder.name, "digits.pack.partial")
    >>> path.symlink_to(elsewhere)
    >>> try:
    ...     open_write(path, create=True)
    ... except NotAFileError as error:
    ...     print(error.strerror)
    a link, and links are not followed here; put what it leads to in its place, or remove it
    >>> elsewhere.exists()
    False
    >>> folder.cleanup()
    """
    return _open_alone(path, os.O_RDWR | (os.O_CREAT if create else 0))


def open_append(path: Path) -> io.BufferedWriter:
    """Opens a file to write at its end and makes it where there is none; links are not followed.

    Raises as `open_write` does.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "metrics.jsonl")
    >>> for line in (b"first ", b"second"):
    ...     with open_append(path) as file:
    ...         _ = file.write(line)
    >>> path.read_bytes()
    b'first second'
    >>> folder.cleanup()
    """
    return os.fdopen(_open_alone(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def open_lock(path: Path, *, create: bool = True) -> int:
    """Opens a file to lock it; links are not followed. Another person's file, which may only be read, will do.

    create: makes it where there is none. Raises as `open_write` does, but takes a file with a second name: a lock
    changes nothing in it.

    >>> open_lock(Path("."))
    Traceback (most recent call last):
        ...
    IsADirectoryError: [Errno 21] Is a directory: '.'
    """
    try:
        return _open(path, os.O_RDWR | (os.O_CREAT if create else 0), follow=False)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        try:
            return _open(path, os.O_RDONLY, follow=False)
        except FileNotFoundError:  # it cannot be made: why not is the first error
            raise error from None


def has_one_name(fd: int) -> bool:
    """Whether an open file has no second name, under which it would be changed too.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     has_one_name(file.fileno())
    True
    """
    return os.fstat(fd).st_nlink <= 1


def is_named(fd: int, path: Path) -> bool:
    """Whether an open file is the one that has this name now: another process may have removed or replaced it.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     is_named(file.fileno(), Path(file.name)), is_named(file.fileno(), Path(os.devnull))
    (True, False)
    """
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError as error:
        # ESTALE: another machine has removed it.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            raise
        return False


def is_ours(fd: int) -> bool:
    """Whether an open file belongs to this process's user; True where the system has no users.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     is_ours(file.fileno())
    True
    """
    return not hasattr(os, "geteuid") or os.fstat(fd).st_uid == os.geteuid()


def require_folder(folder: Path) -> None:
    """Raises NotAFileError where a folder that is written into is a link; nothing where there is none yet.

    For folders that this program makes below one that a user has named, which may be a link itself.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     Path(name, "export").symlink_to("/")
    ...     try:
    ...         require_folder(Path(name, "export"))
    ...     except NotAFileError as error:
    ...         print(error.strerror)
    a link, and links are not followed here; put what it leads to in its place, or remove it
    """
    if folder.is_symlink():
        raise _link(folder)


def kind(path: Path) -> str:
    """What has this name, for a message: "a file", "a folder", "a pipe", …; "nothing" where nothing has.

    >>> kind(Path(os.devnull)), kind(Path(".")), kind(Path("no/such/file"))
    ('a device', 'a folder', 'nothing')
    """
    try:
        return _kind(os.lstat(path).st_mode)
    except OSError:
        return "nothing"


def _require_size(file: io.BufferedReader, path: Path, most: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise NotAFileError(errno.EINVAL, f"{size:,} bytes, and at most {most:,} are read", str(path))


def _open_alone(path: Path, flags: int) -> int:
    """A descriptor of a regular file that has one name."""
    fd = _open(path, flags, follow=False)
    if not has_one_name(fd):
        os.close(fd)
        hint = "has a second name, and the file of that name would be changed as well; remove it"
        raise NotAFileError(errno.EMLINK, hint, str(path))
    return fd


def _open(path: Path, flags: int, *, follow: bool) -> int:
    """A descriptor of a regular file, looked at before it is opened, as a device may act on that, and after."""
    try:
        _check((os.stat if follow else os.lstat)(path), path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    try:
        fd = os.open(path, flags | CLOEXEC | _AT_ONCE | (0 if follow else _NOFOLLOW), _NEW_FILE)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise _link(path) from None
        raise
    try:
        _check(os.fstat(fd), path)
    except OSError as error:
        os.close(fd)
        error.filename = error.filename or str(path)
        raise
    return fd


def _check(status: os.stat_result, path: Path) -> None:
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISLNK(mode):
        raise _link(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise NotAFileError(errno.EINVAL, f"{_kind(mode)}, where a file is expected", str(path))


def _link(path: Path) -> NotAFileError:
    hint = "a link, and links are not followed here; put what it leads to in its place, or remove it"
    return NotAFileError(errno.ELOOP, hint, str(path))


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return "a file" if stat.S_ISREG(mode) else "a folder"
    return next((words for is_one, words in _KINDS if is_one(mode)), "no file")
