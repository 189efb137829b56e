"""A web server of the tests' own, over loopback: it serves a folder well, or does to single requests what servers
do.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helpers.servers import in_thread

Trick = Callable[["Handler"], bool]
"""Answers a request; False where the request is to be answered well."""


class Web(ThreadingHTTPServer):
    """The server, what it was asked, and what it does to the next requests."""

    daemon_threads = True
    request_queue_size = (
        128  # connections that wait; of more than the usual 5, some would be tried again after 1 s
    )

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.ranges = folder, ranges
        self.asked: list[tuple[str, str, int]] = []
        """(path, range, bytes that were sent) of each request."""
        self.trick: Trick | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def sent(self) -> int:
        """Bytes of all answers together."""
        return sum(count for _, _, count in self.asked)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client may hang up."""


class Handler(BaseHTTPRequestHandler):
    """Answers GET with ranges, ETag and Last-Modified."""

    protocol_version = "HTTP/1.1"
    server: Web

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        trick = self.server.trick
        if trick is None or not trick(self):
            self.answer()

    @property
    def file(self) -> Path:
        return self.server.folder / self.path.partition("?")[0].lstrip("/")

    def range(self, size: int) -> tuple[int, int] | None:
        """(first byte, end) that is asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        return (int(found[1]), min(size, int(found[2]) + 1)) if found and self.server.ranges else None

    def tag(self) -> str:
        status = self.file.stat()
        return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'

    def refuse(self, status: int, **headers: str) -> bool:
        """Answers with a status and no content."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.note(0)
        return True

    def answer(
        self,
        *,
        cut: int | None = None,
        pause: float = 0.0,
        change: bool = False,
        length: int = 0,
        tag: str = "",
    ) -> bool:
        """Answers well, but for what is said: cut: bytes after which the connection ends; pause: seconds before
        the last byte; change: a byte of the content is another; length: that many bytes more are promised.
        """
        if not self.file.is_file():
            return self.refuse(404)
        size = self.file.stat().st_size
        part = self.range(size)
        first, end = part or (0, size)
        if part and first >= size:
            return self.refuse(416, Content_Range=f"bytes */{size}")
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.send_header("ETag", tag or self.tag())
        self.send_header("Content-Length", str(end - first + length))
        self.end_headers()
        with self.file.open("rb") as file:
            file.seek(first)
            sent = 0
            while sent < end - first:
                piece = bytearray(file.read(min(1 << 20, end - first - sent)))
                if change and len(piece):
                    piece[len(piece) // 2] ^= 1
                if cut is not None:
                    piece = piece[: max(0, cut - sent)]
                if pause:
                    self.wfile.write(piece[:-1])
                    self.wfile.flush()
                    time.sleep(pause)
                    piece, sent = piece[-1:], sent + len(piece) - 1
                self.wfile.write(piece)
                sent += len(piece)
                if cut is not None and sent >= cut:
                    break
        if cut is not None or length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        self.note(sent)
        return True

    def note(self, sent: int) -> None:
        with self.server.lock:
            self.server.asked.append((self.path, self.headers.get("Range", ""), sent))


@contextmanager
def serving(folder: Path, ranges: bool = True) -> Iterator[Web]:
    """A server of a folder, until the end."""
    with in_thread(Web(folder, ranges)) as server:
        yield server


def each_nth(number: int, trick: Trick) -> Trick:
    """Plays a trick on every so manyth request."""
    count, lock = [0], threading.Lock()

    def play(handler: Handler) -> bool:
        with lock:
            count[0] += 1
            now = count[0] % number == 0
        return now and trick(handler)

    return play


def first(times: int, trick: Trick) -> Trick:
    """Plays a trick on so many requests for each part of a file, and then no more."""
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def play(handler: Handler) -> bool:
        part = handler.headers.get("Range", "")
        with lock:
            seen[part] = seen.get(part, 0) + 1
            now = seen[part] <= times
        return now and trick(handler)

    return play


def once(trick: Trick) -> Trick:
    """Plays a trick on the first request that it can be played on."""
    played, lock = [False], threading.Lock()

    def play(handler: Handler) -> bool:
        with lock:
            if played[0]:
                return False
            played[0] = bool(trick(handler))
            return played[0]

    return play
