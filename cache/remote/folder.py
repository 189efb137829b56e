"""What a folder of caches elsewhere can do, what it promises, and how its failures are told apart.

Whatever a store sends is believed no more than a file that a stranger sent: lengths are counted, blocks have checksums,
the header has a seal. So a store that lies or breaks off costs time and never a wrong row.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from decant.cache.errors import CacheError, OfflineError, RemoteError
from decant.cache.io.redaction import redacted
from decant.cache.remote.progress import Advance

ATTEMPTS = 5
"""How often a request is made that fails in a way that passes."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 60.0  # seconds
_OFFLINE_ATTEMPTS = 2
_MOST_CAUSES = 10
_MOST_TEXT = 200  # of a library's error

Found = TypeVar("Found")


class Stat(NamedTuple):
    """What a store says of a file."""

    size: int
    """In bytes; −1 where the store does not say."""
    tag: str
    """Changes with the content, as an ETag; "" where the store has none."""


class Promises(NamedTuple):
    """What a kind of store can do."""

    ranges: bool
    """Parts of a file can be read."""
    lists: bool
    """The files of a folder can be listed."""
    writes: bool
    """Files can be published and removed."""
    conditional: bool
    """A file appears only where none has its name, decided by the store."""
    notes: bool
    """Small files cost little, so that who builds a cache says so there."""


class RemoteFolder(Protocol):
    """A folder of files elsewhere. All of it may be called from several threads."""

    shown: str
    """Its address for messages, without secrets."""
    promises: Promises

    def file_shown(self, name: str) -> str:
        """The address of a file for messages, without secrets."""

    def names(self) -> dict[str, int]:
        """The files in the folder itself, and their sizes; {} where the folder is not there. Raises RemoteError."""

    def stat(self, name: str) -> Stat | None:
        """One file, by one request; None where there is none. Raises RemoteError."""

    def read(self, name: str, first: int, end: int, tag: str = "") -> bytes:
        """Bytes `first` to `end` − 1, exactly as many. Raises FileNotFoundError, RemoteError, ChangedError where the
        file no longer has that tag, NoRangesError where the store sends whole files alone.
        """

    def copy_to(self, name: str, write: Callable[[bytes], None], tag: str = "") -> None:
        """The whole file, from its first byte on, in pieces. Raises as `read` does."""

    def put(self, name: str, path: Path, advance: Advance) -> bool:
        """Makes a file of this name with the content of the file at `path`, visible in one step; False where there is
        one already, which stays. Raises RemoteError.
        """

    def put_small(self, name: str, content: bytes, *, replace: bool = False) -> bool:
        """As `put`, with a few bytes; `replace` puts them in place of what is there."""

    def remove(self, name: str) -> None:
        """Removes a file; nothing where there is none. Raises RemoteError."""

    def leftovers(self, older: float, delete: bool) -> list[str]:
        """Uploads that nobody finished for `older` seconds, for messages; removes them where `delete` says so."""


class ChangedError(RemoteError):
    """A file was replaced while it was read."""


class NoRangesError(RemoteError):
    """The store sends whole files alone."""


class _PassingError(Exception):
    """What may go well the next time. seconds: when to try again, where the store says."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


def passing(reason: str, seconds: float | None = None) -> Exception:
    """What `attempt` takes for a failure that passes."""
    return _PassingError(reason, seconds)


_OFFLINE = {
    "gaierror",
    "ConnectionRefusedError",
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "EndpointConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectTimeoutError",
    "ConnectionTimeoutError",
    "OfflineModeIsEnabled",
}
_PASSING = {
    "ClientPayloadError",
    "ServerDisconnectedError",
    "ServerTimeoutError",
    "ClientOSError",
    "IncompleteRead",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ReadTimeout",
    "ReadError",
    "RemoteProtocolError",
    "HTTPClientError",
    "ConnectionClosedError",
    "ResponseParserError",
    "FSTimeoutError",
    "TimeoutError",
    "ConnectionError",
    "ChecksumError",
    "FlexibleChecksumError",
}
_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "NoAuthTokenError",
    "ProfileNotFound",
    "LocalTokenNotFoundError",
    "DefaultCredentialsError",
    "RefreshError",
}
_REDIRECTED = {"TooManyRedirects", "RecursionError"}  # some libraries call themselves for each redirect
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529})
"""What a server or its gateway answers that may answer the next time; those from 520 on are Cloudflare's."""
_PASSING_ERRNO = (errno.EBUSY, errno.EPIPE, errno.ECONNRESET, getattr(errno, "EREMOTEIO", errno.EBUSY))


def attempt(shown: str, action: Callable[[], Found]) -> Found:
    """What `action` returns, after as many tries as its failures are worth. Raises FileNotFoundError as it does, and
    RemoteError, OfflineError, which name `shown` and no secret.

    >>> tries = []
    >>> def unsteady():
    ...     tries.append(1)
    ...     if len(tries) < 3:
    ...         raise ConnectionResetError("cut")
    ...     return "content"
    >>> attempt("s3://team/caches", unsteady)
    'content'
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return action()
        except (FileNotFoundError, CacheError):
            raise
        except Exception as error:
            seconds = _worth_waiting(shown, error, number)
        time.sleep(seconds)
    raise AssertionError("the last attempt raises")


def _worth_waiting(shown: str, error: Exception, number: int) -> float:
    """Seconds to wait before the next try; raises where there is to be none."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = _status(error)
    if names & _CREDENTIALS:
        raise RemoteError(f"{shown}: no credentials, or none that can be used ({_said(error)})") from None
    if any(kind.__name__ in _REDIRECTED for cause in _causes(error) for kind in type(cause).__mro__):
        raise RemoteError(
            f"{shown}: is redirected again and again, without an end; mend the address, or the server"
        ) from None
    if isinstance(error, PermissionError) or status in (401, 403):
        what_to_do = _SIGNED if "?" in shown else _PERMISSION
        raise RemoteError(f"{shown}: no permission ({_said(error)}); {what_to_do}") from None
    if names & _OFFLINE:
        if number >= _OFFLINE_ATTEMPTS:
            raise OfflineError(f"{shown}: cannot be reached ({_said(error)})") from None
    elif not (
        isinstance(error, _PassingError)
        or names & _PASSING
        or status in PASSING_STATUS
        or (isinstance(error, OSError) and error.errno in _PASSING_ERRNO)
    ):
        raise RemoteError(f"{shown}: {_said(error)}") from None
    if number >= ATTEMPTS:
        raise RemoteError(f"{shown}: failed {number} times, the last time: {_said(error)}") from None
    asked: float | None = getattr(error, "seconds", None)
    wait: float = _FIRST_WAIT * 2 ** (number - 1) * random.uniform(0.5, 1.5)
    return min(_LONGEST_WAIT, wait if asked is None else max(asked, wait))


_SIGNED = "where its signature has expired, sign it anew: what was fetched is kept, and gone on with"
_PERMISSION = "credentials are those that the store's own library finds: its environment, files or login"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error of a library, and those that led to it."""
    for _ in range(_MOST_CAUSES):
        if error is not None:
            yield error
            error = error.__cause__ or error.__context__


def _status(error: Exception) -> int | None:
    """The status of HTTP that an error of a library is about."""
    found = getattr(error, "status", None) or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if found is None and response is not None and not isinstance(response, dict):
        found = getattr(response, "status_code", None)
    return found if isinstance(found, int) else None


def _said(error: Exception) -> str:
    """An error of a library in a few words, without secrets."""
    text = " ".join(redacted(str(error)).split())
    text = text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"
    if isinstance(error, _PassingError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
