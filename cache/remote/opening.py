"""The folder that an address, or a path, leads to."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from decant.cache.io.files import user_path
from decant.cache.remote.addresses import Address, is_url
from decant.cache.remote.folder import RemoteFolder
from decant.cache.remote.fsspec_folder import FsspecFolder
from decant.cache.remote.gcs import GcsFolder
from decant.cache.remote.http import HttpFolder
from decant.cache.remote.hub import HubFolder
from decant.cache.remote.local_folder import LocalFolder
from decant.cache.remote.s3 import S3Folder

_KINDS = {"s3": S3Folder, "gs": GcsFolder, "http": HttpFolder, "https": HttpFolder, "hf": HubFolder}


def open_folder(name: str | os.PathLike[str]) -> RemoteFolder:
    """The folder of caches at a path or an address. It sends no request yet. Raises RemoteError for an address that
    is none, and where the library is missing that reaches it, with the extra that brings it.

    >>> open_folder("caches").shown, open_folder("memory://team/caches").shown
    ('caches', 'memory://team/caches')
    >>> open_folder("ftp://host/caches")
    Traceback (most recent call last):
        ...
    decant.cache.errors.RemoteError: ftp://host/caches: stores are folders, or begin with s3://, ...
    """
    text = os.fspath(name)
    if not is_url(text):
        return LocalFolder(user_path(text))
    if text.lower().startswith("file://"):
        return LocalFolder(Path(unquote(urlsplit(text).path)))
    address = Address.of(text)
    return _KINDS.get(address.scheme, FsspecFolder)(address)
