"""Google Cloud Storage. gcsfs takes credentials from Google's default ones.

Reads carry the generation of the file, which a replaced one no longer has. Publishing carries `ifGenerationMatch=0`,
which no file of that name may contradict; of a large file it is said where its upload begins.
"""

from __future__ import annotations

from typing import Any

from decant.cache.errors import RemoteError
from decant.cache.remote.addresses import Address
from decant.cache.remote.folder import ChangedError, Stat, attempt
from decant.cache.remote.fsspec_folder import FsspecFolder

_CONNECT_SECONDS, _SILENT_SECONDS = 10, 60


class GcsFolder(FsspecFolder):
    """A prefix of a bucket: a `RemoteFolder`."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if "@" in address.host or ":" in address.host:
            raise RemoteError(
                f"{self.shown}: credentials in an address of Google Cloud Storage are not taken; use "
                "GOOGLE_APPLICATION_CREDENTIALS, or gcloud auth application-default login"
            )
        self._bucket = address.host

    def _connect(self) -> Any:
        """gcsfs as it is without its experiments, which ask for the kind of each bucket by another protocol, and
        without its own tries, which would come on top of those of `attempt`.
        """
        import aiohttp
        from gcsfs.core import GCSFileSystem

        waits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS)
        once = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)

        class Once(GCSFileSystem):  # type: ignore[misc]
            async def _request(self, *given: Any, **named: Any) -> Any:
                try:
                    return await once(self, *given, **named)
                except OSError as error:
                    if str(error).startswith("Forbidden"):
                        raise PermissionError("the server answered 403") from None
                    raise

        return Once(requests_timeout=waits, **self.options)

    def tag_of(self, found: dict[str, Any]) -> str:
        return str(found.get("generation") or super().tag_of(found))

    def stat(self, name: str) -> Stat | None:
        """By one request, where gcsfs would also look whether it is a folder."""

        def ask() -> dict[str, Any]:
            found: dict[str, Any] = sync(self.fs.loop, self.fs._get_object, self.path_of(name))
            return found

        from fsspec.asyn import sync

        try:
            found = attempt(self.file_shown(name), ask)
        except FileNotFoundError:
            return None
        return Stat(int(found["size"]), self.tag_of(found))

    def fetch(self, name: str, first: int, end: int, tag: str) -> bytes:
        from fsspec.asyn import sync

        more = {"generation": tag} if tag.isdecimal() else {}
        wanted = {"Range": f"bytes={first}-{end - 1}"}
        try:
            content: bytes
            _, content = sync(
                self.fs.loop, self.fs._call, "GET", self.fs.url(self.path_of(name)), headers=wanted, **more
            )
        except FileNotFoundError:
            if tag:
                raise ChangedError(f"{self.file_shown(name)}: was replaced while it was read") from None
            raise
        return content

    def _require_store(self) -> None:
        try:
            attempt(self.shown, lambda: self.fs.call("GET", "b/{}", self._bucket, json_out=True))
        except FileNotFoundError:
            raise RemoteError(
                f"{self.shown}: there is no bucket {self._bucket}; make it, or mend the name"
            ) from None
        except RemoteError:
            pass  # who may read files of a bucket may not ask for the bucket itself
