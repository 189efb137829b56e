"""Small files, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decant.pipeline.errors import BusyError, DamagedError


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes beside `path`, syncs, then takes its name: a reader sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, for people too; a name that is no text, as a file's may be, in escapes."""
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2).encode()
    write_atomically(path, text + b"\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises DamagedError where it is no JSON any more."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise DamagedError(
            f"{path}: damaged ({error}); delete it, and what it spoke of is made again"
        ) from None


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Keeps other processes from the same folder; a dead one keeps nobody. Raises BusyError, saying who is
    there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 200, 0).decode(errors="replace") or "another process"
                raise BusyError(
                    f"{folder}: {holder} is making this; wait for it, then run the command again"
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(fd)


def holder(folder: Path) -> str | None:
    """The process that is alone with a folder, as it named itself; None where none is known to be.

    Its lock is only asked for where the process named in it may live: held even for a moment, it would turn away
    somebody who begins just then.
    """
    try:
        fd = os.open(_lock_of(folder), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        named = os.pread(fd, 200, 0).decode(errors="replace")
        if _may_live(named):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return named
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(fd)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _may_live(named: str) -> bool:
    """Whether "process PID on HOST" may still be there; of another machine nobody knows."""
    _, pid, _, host = (named.split(maxsplit=3) + [""] * 4)[:4]
    if host != socket.gethostname() or not pid.isdecimal():
        return bool(named)
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another person's process, or no process id at all
    return True
