"""A web server with ranges for the measurements, in a process of its own: `python -m benchmarks.web_server FOLDER`.

With two more words, FIRST and END, it sends ones for these bytes of each file: so that a file of holes has content.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_sent = [0]
_lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder = Path()
    ones = 0, 0

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        """A range of a file; of /sent, the bytes that were sent until now."""
        if self.path == "/sent":
            self._answer(200, str(_sent[0]).encode())
            return
        path = self.folder / self.path.lstrip("/")
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, end = (int(found[1]), min(size, int(found[2]) + 1)) if found else (0, size)
        with path.open("rb") as file:
            content = os.pread(file.fileno(), end - first, first)
        start, stop = max(first, self.ones[0]), min(end, self.ones[1])
        if start < stop:
            content = content[: start - first] + b"\1" * (stop - start) + content[stop - first :]
        self._answer(206 if found else 200, content, f"bytes {first}-{end - 1}/{size}")

    def _answer(self, status: int, content: bytes, part: str = "") -> None:
        with _lock:
            _sent[0] += len(content)
        self.send_response(status)
        self.send_header("ETag", '"bench"')
        if part:
            self.send_header("Content-Range", part)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    """Connections that wait to be taken. The usual 5 are too few for a client that opens many at once: the others are
    tried again after 1, 3 and 7 s.
    """


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    if len(sys.argv) > 3:
        _Handler.ones = int(sys.argv[2]), int(sys.argv[3])
    server = _Server(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
