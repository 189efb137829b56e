"""Requests of JSON over a connection that is kept, repeated where the server cannot be reached or is busy."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from decant.cache.io.redaction import HIDDEN, redacted
from decant.pipeline.errors import ServerError
from decant.pipeline.served.teacher import ServedTeacher
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.terminal import one_line

_BUSY = {408, 425, 429, 502, 503, 504, *range(520, 525), 529}  # those from 520 on are Cloudflare's
_NEVER = {501, 505}  # other numbers from 500 on are of a request perhaps, and not of the moment
_MOST_FAILURES = 5
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED = 0.25, 30.0, 600.0
_MOST_BYTES = 1 << 30
_PIECE = 1 << 18
_SHOWN = 300  # letters of what a server says


class RefusedError(ServerError):
    """A request that the server does not take, and would not take later."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreachableError(ServerError):
    """A server that was not reached, or was busy, for as long as the user waits."""


class _NotNowError(Exception):
    """An answer that did not come, and may come later. `wait`: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None, failed: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.failed = wait, failed


class Connection:
    """A connection of one thread to a server.

    `left` says that nobody waits for answers any more.
    """

    def __init__(
        self,
        teacher: ServedTeacher,
        patience: float | None = None,
        left: Callable[[], bool] = lambda: False,
    ) -> None:
        parts = urlsplit(teacher.root)
        self.url, self._prefix = teacher.root, parts.path
        self._host, self._port, self._secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._key, self._timeout = teacher.key(), float(teacher.timeout)
        self.patience = teacher.patience if patience is None else patience
        self._left = left
        self._open: http.client.HTTPConnection | None = None

    def get(self, path: str) -> Any:
        """What the server answers, as JSON. Raises RefusedError, UnreachableError, ServerError."""
        return self._ask("GET", path, None)

    def post(self, path: str, content: dict[str, Any]) -> Any:
        """The same of a request with a body of JSON."""
        return self._ask("POST", path, json.dumps(content).encode())

    def close(self) -> None:
        """Ends what is under way too, from whatever thread."""
        connection, self._open = self._open, None
        if connection is not None:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()

    def words(self, text: object) -> str:
        """What a server said, as it may be shown: short, in one line, without the key."""
        said = str(text)
        if self._key:
            said = said.replace(self._key, HIDDEN)
        said = one_line(redacted(" ".join(said.split())))
        return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"

    def _ask(self, method: str, path: str, body: bytes | None) -> Any:
        since, tries, failures = 0.0, 0, 0
        while True:
            try:
                return self._once(method, path, body)
            except _NotNowError as error:
                self.close()
                now = time.monotonic()
                since, tries, failures = since or now, tries + 1, failures + error.failed
                wait = self._wait(tries, error)
                if failures >= _MOST_FAILURES:
                    raise ServerError(f"{self.url}: {error}, {failures} times") from None
                if now - since + wait > self.patience:
                    tried = "" if tries == 1 else f", {tries} times in {now - since:,.0f} s"
                    asks = (
                        ""
                        if not error.wait
                        else f"; it says to wait {error.wait:,.0f} s, and patience is {self.patience:g} s in all"
                    )
                    raise UnreachableError(f"{self.url}: {error}{tried}{asks}") from None
                if now - since > 2:
                    say_once(f"{self.url}: {error}; it is asked again for {self.patience:,.0f} s", self.url)
                self._sleep(wait)

    def _wait(self, tries: int, error: _NotNowError) -> float:
        if error.wait is not None:
            # 0, or a date that has passed, is no reason to flood.
            return min(max(error.wait, _FIRST_WAIT), _LONGEST_ASKED)
        return min(_FIRST_WAIT * 2 ** min(tries, 10), _LONGEST_WAIT) * (0.5 + random.random() / 2)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._left():
                raise ServerError(f"{self.url}: nobody waits for its answer any more")
            time.sleep(min(left, 0.1))

    def _once(self, method: str, path: str, body: bytes | None) -> Any:
        until = time.monotonic() + self._timeout
        headers = {"Accept": "application/json", "User-Agent": "decant"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection = self._connected()
            connection.request(method, f"{self._prefix}{path}", body, headers)
            response = connection.getresponse()
            content = self._read(connection, response, until)
        except ssl.SSLCertVerificationError as error:
            raise ServerError(
                f"{self.url}: its certificate is not trusted ({error.verify_message})"
            ) from None
        except TimeoutError:
            raise _NotNowError(f"did not answer within {self._timeout:g} s") from None
        except (OSError, http.client.HTTPException) as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _NotNowError(f"cannot be reached ({type(error).__name__}: {self.words(said)})") from None
        return self._content(response, content)

    def _connected(self) -> http.client.HTTPConnection:
        connection = self._open
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = self._open = kind(self._host, self._port, timeout=self._timeout)
            connection.auto_open = 0  # what `close` ended would begin again, with a socket that nobody closes
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(self._timeout)
        if self._left():  # what is left while it connects has no socket yet that `close` could end
            connection.close()
            raise ServerError(f"{self.url}: nobody waits for its answer any more")
        return connection

    def _read(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse, until: float
    ) -> bytes:
        """The body, within the time of an answer: a server may send a byte now and then for ever."""
        pieces, size, expected = list[bytes](), 0, response.length
        while expected is None or size < expected:
            piece = response.read1(_PIECE if expected is None else min(_PIECE, expected - size))
            pieces.append(piece)
            size += len(piece)
            left = until - time.monotonic()
            if not piece:
                break
            if size > _MOST_BYTES:
                self.close()
                raise ServerError(f"{self.url}: an answer of more than {_MOST_BYTES:,} bytes")
            if left <= 0:
                raise TimeoutError
            if connection.sock is not None:
                connection.sock.settimeout(left)
        response.close()  # and the connection is kept, where the server keeps it
        if expected is not None and size < expected:
            raise http.client.IncompleteRead(b"", expected - size)
        return b"".join(pieces)

    def _content(self, response: http.client.HTTPResponse, content: bytes) -> Any:
        status, said = response.status, f"answers {response.status} {self._said(content)}".rstrip()
        if status in _BUSY or (status >= 500 and status not in _NEVER):
            raise _NotNowError(said, _retry_after(response), failed=status not in _BUSY)
        if not 200 <= status < 300:
            sent = re.split("[?#]", response.getheader("Location", ""))[0]  # the rest may hold a key
            there = f", and sends to {self.words(sent)}: give the address that answers" if sent else ""
            raise RefusedError(f"{self.url}: {said}{there}", status)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise _NotNowError("answers with what is no JSON", failed=True) from None

    def _said(self, content: bytes) -> str:
        """The message in the body of an error, as servers word it: {error: {message}}, {message}, {detail}."""
        text = content[: 1 << 16].decode(errors="replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return f"({self.words(text)})" if text.strip() else ""
        for name in ("error", "message", "detail"):
            if isinstance(found, dict) and name in found:
                found = found[name]
        return f"({self.words(found)})"


def _retry_after(response: http.client.HTTPResponse) -> float | None:
    """Seconds, from a header that says them, or a date."""
    text = (response.getheader("Retry-After") or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 8:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
