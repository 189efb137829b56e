"""Addresses of stores and of files in them: which library reaches them, and what of them may be shown."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote, urlsplit

from decant.cache.errors import RemoteError
from decant.cache.io.redaction import HIDDEN, redacted

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ONE_SLASH = re.compile(r"(s3|gs|hf|https?|memory):/(?!/)", re.IGNORECASE)
_WEB = ("http", "https")
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "hf": ("HF_ENDPOINT",),
}


def is_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is an address, as `s3://bucket/caches`, and no path. Raises RemoteError for an address that has
    lost a slash, as in a `pathlib.Path`, which would be taken for a folder here.

    >>> is_url("s3://team/caches"), is_url("caches/x.h5"), is_url("C:/caches")
    (True, False, False)
    >>> from pathlib import Path
    >>> is_url(Path("s3://team/caches"))
    Traceback (most recent call last):
        ...
    decant.cache.errors.RemoteError: s3:/team/caches: one slash is missing; write s3://team/caches, and no Path of it
    """
    text = os.fspath(name)
    if (found := _ONE_SLASH.match(text)) and not os.path.lexists(f"{found[1]}:"):
        whole = redacted(f"{found[1]}://{text[found.end() :]}")
        shown = whole.replace("://", ":/", 1)
        raise RemoteError(f"{shown}: one slash is missing; write {whole}, and no Path of it")
    return _URL.match(text) is not None


@dataclass(frozen=True)
class Address:
    """Where a store, or a file in one, lies.

    >>> address = Address.of("https://me:secret@host/caches/x.h5?X-Amz-Signature=0f")
    >>> address.shown, address.name, address.folder.shown
    ('https://host/caches/x.h5?***', 'x.h5', 'https://host/caches?***')
    """

    scheme: str
    host: str
    """With user and password, where the address has them."""
    path: str
    """Without slashes at its ends; of a web address quoted as it was given."""
    query: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Raises RemoteError for what is no address of a store."""
        found = _URL.match(url)
        scheme = found[1].lower() if found else ""
        try:
            split = urlsplit(url, allow_fragments=scheme in _WEB)
            _ = split.port if scheme in _WEB else None
        except ValueError as error:
            raise RemoteError(f"{redacted(url)}: no address of a store: {error}") from None
        path, query = (split.path, split.query) if scheme in _WEB else (url.partition("://")[2], "")
        host = split.netloc
        if scheme not in _WEB:
            host, _, path = path.partition("/")
        path = path.strip("/")
        if scheme == "memory":
            host, path = "", "/".join(part for part in (host, path) if part)
        elif not host:
            raise RemoteError(
                f"{redacted(url)}: no address of a store: it names no {_FIRST.get(scheme, 'host')}"
            )
        if any(part in (".", "..") for part in unquote(path).split("/")):
            raise RemoteError(f"{redacted(url)}: no address of a store: it has a part that is . or ..")
        return cls(scheme, host, path, query)

    @property
    def url(self) -> str:
        """The whole address, with its secrets."""
        whole = f"{self.scheme}://{'/'.join(part for part in (self.host, self.path) if part)}"
        return f"{whole}?{self.query}" if self.query else whole

    @property
    def shown(self) -> str:
        """For messages and files: without user, password and query."""
        public = replace(self, host=self.host.rpartition("@")[2], query=HIDDEN if self.query else "")
        return redacted(public.url)

    @property
    def name(self) -> str:
        """The last part of the path, of a file its name."""
        last = self.path.rpartition("/")[2]
        return unquote(last) if self.scheme in _WEB else last

    @property
    def folder(self) -> Address:
        """The address of the folder around it."""
        return replace(self, path=self.path.rpartition("/")[0])

    def child(self, name: str) -> Address:
        """The address of a file in this folder."""
        last = quote(name) if self.scheme in _WEB else name
        return replace(self, path="/".join(part for part in (self.path, last) if part))

    @property
    def slug(self) -> str:
        """A name for a folder of what comes from here; the same for any password and signature."""
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS.get(self.scheme, ()))), "")
        public = f"{self.scheme}://{self.host.rpartition('@')[2]}/{self.path}"
        digest = hashlib.sha256(f"{endpoint} {public}".encode()).hexdigest()[:12]
        readable = re.sub(r"[^A-Za-z0-9._]+", "-", redacted(public).partition("://")[2]).strip("-.")[:40]
        return f"{self.scheme}-{readable or 'store'}-{digest}"


_FIRST = {"s3": "bucket", "gs": "bucket", "hf": "dataset"}
