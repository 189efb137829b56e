"""Web addresses, which can only be read. A server may do anything, and what matters of it is checked: status, ranges,
lengths, and that the file is the same from one request to the next.

fsspec's own HTTP takes whatever body comes for the range that was asked for; so its session is used, with requests of
this module's own. Proxies, certificates and ~/.netrc are those of aiohttp; the headers that fsspec's configuration has
for http are sent.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, ClassVar

from decant.cache.errors import RemoteError
from decant.cache.remote.addresses import Address
from decant.cache.remote.folder import (
    PASSING_STATUS,
    ChangedError,
    NoRangesError,
    Promises,
    Stat,
    attempt,
    passing,
)
from decant.cache.remote.fsspec_folder import FsspecFolder
from decant.cache.remote.progress import Advance

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PIECE = 1 << 20
_CONNECT_SECONDS, _SILENT_SECONDS = 10, 30


class HttpFolder(FsspecFolder):
    """A folder of a web server: a `RemoteFolder` that cannot be listed or written."""

    promises = Promises(ranges=True, lists=False, writes=False, conditional=False, notes=False)
    options: ClassVar[dict[str, Any]] = {
        **FsspecFolder.options,
        "client_kwargs": {"trust_env": True, "auto_decompress": False},
    }

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.promises = HttpFolder.promises

    def url_of(self, name: str) -> str:
        """Where a file is asked for."""
        return self.address.child(name).url

    def headers(self) -> dict[str, str]:
        """What is sent with each request."""
        return {}

    def names(self) -> dict[str, int]:
        raise RemoteError(f"{self.shown}: a web server does not list its files; name one")

    def stat(self, name: str) -> Stat | None:
        """Asks for the first byte: many servers, and signed addresses, answer GET and no HEAD."""
        shown = self.file_shown(name)

        async def ask() -> Stat:
            async with self._asked(name, {"Range": "bytes=0-0"}) as answer:
                if answer.status == 206:
                    return Stat(_range_of(answer, 0, 1, shown), _tag(answer.headers))
                if answer.status == 416:
                    raise RemoteError(f"{shown}: an empty file")
                length = answer.headers.get("Content-Length", "")
                return Stat(int(length) if length.isdecimal() else -1, _tag(answer.headers))

        try:
            found: Stat = attempt(shown, lambda: self._run(ask))
            return found
        except FileNotFoundError:
            return None

    def fetch(self, name: str, first: int, end: int, tag: str) -> bytes:
        shown = self.file_shown(name)

        async def ask() -> bytes:
            wanted = {"Range": f"bytes={first}-{end - 1}"}
            async with self._asked(name, wanted) as answer:
                _require_tag(answer, tag, shown)
                if answer.status == 416:
                    raise RemoteError(
                        f"{shown}: has no bytes {first:,} to {end - 1:,} (416), though it said so before"
                    )
                if answer.status != 206:
                    raise NoRangesError(f"{shown}: the server sends whole files alone")
                _range_of(answer, first, end, shown)
                content = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE):
                    content += piece
                    if len(content) > end - first:
                        raise passing(f"sent more than the {end - first:,} bytes that were asked for")
                return bytes(content)

        content: bytes = self._run(ask)
        return content

    def copy_to(self, name: str, write: Callable[[bytes], None], tag: str = "") -> None:
        shown = self.file_shown(name)

        async def ask() -> None:
            async with self._asked(name, {}) as answer:
                _require_tag(answer, tag, shown)
                if answer.status != 200:
                    raise RemoteError(f"{shown}: the server answered {answer.status}")
                length, got = answer.headers.get("Content-Length", ""), 0
                async for piece in answer.content.iter_chunked(_PIECE):
                    got += len(piece)
                    write(piece)
                if length.isdecimal() and got != int(length):
                    raise passing(f"sent {got:,} of {int(length):,} bytes")

        self._run(ask)  # which whoever writes begins anew where it fails

    def put(self, name: str, path: Path, advance: Advance) -> bool:
        raise self._read_only()

    def put_small(self, name: str, content: bytes, *, replace: bool = False) -> bool:
        raise self._read_only()

    def remove(self, name: str) -> None:
        raise self._read_only()

    def leftovers(self, older: float, delete: bool) -> list[str]:
        return []

    def _read_only(self) -> RemoteError:
        return RemoteError(
            f"{self.shown}: a web server can only be read; publish to s3://, gs://, hf:// or a folder"
        )

    def _run(self, ask: Callable[[], Any]) -> Any:
        from fsspec.asyn import sync

        return sync(self.fs.loop, ask)

    @contextlib.asynccontextmanager
    async def _asked(self, name: str, more: Mapping[str, str]) -> AsyncIterator[Any]:
        """The answer to a request, whose status is 200, 206 or 416."""
        import aiohttp
        from yarl import URL

        session = await self.fs.set_session()
        waits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        headers = {"Accept-Encoding": "identity", **self.headers(), **more}
        url = URL(self.url_of(name), encoded=True)
        async with session.get(url, headers=headers, timeout=waits, max_redirects=5) as answer:
            status = answer.status
            if status in (404, 410):
                raise FileNotFoundError(f"{self.file_shown(name)}: no such file")
            if status in (401, 403, 407):
                raise PermissionError(f"the server answered {status}")
            if status in PASSING_STATUS:
                raise passing(f"the server answered {status}", _retry_after(answer.headers))
            if status not in (200, 206, 416):
                raise RemoteError(f"{self.file_shown(name)}: the server answered {status}")
            if answer.headers.get("Content-Encoding", "identity") not in ("identity", ""):
                raise RemoteError(
                    f"{self.file_shown(name)}: the server sends it compressed, though it must not"
                )
            yield answer


def _range_of(answer: Any, first: int, end: int, shown: str) -> int:
    """The size of the whole file, where the answer is of the bytes that were asked for."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if found is None or (int(found[1]), int(found[2])) != (first, end - 1):
        raise RemoteError(
            f"{shown}: the server sends other bytes than {first:,} to {end - 1:,}, which were asked for"
        )
    return int(found[3])


def _tag(headers: Mapping[str, str]) -> str:
    """What changes with the content: a strong ETag, else the time of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _require_tag(answer: Any, tag: str, shown: str) -> None:
    if tag and answer.status in (200, 206) and _tag(answer.headers) != tag:
        raise ChangedError(f"{shown}: was replaced while it was read")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, which it says as a number or as a time."""
    asked = headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    with contextlib.suppress(ValueError, TypeError):
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    return None
