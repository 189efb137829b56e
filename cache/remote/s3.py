"""S3 and what speaks like it. s3fs takes credentials, region and endpoint from botocore's own chain.

Reads carry `If-Match`, so that a file that is replaced between two of them is noticed. Publishing carries
`If-None-Match: *`, with the request that makes the object visible: the only one for a small file, the completion of a
multipart upload for a large one. A store that ignores it promises less: see `FsspecFolder.put` for what remains.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, ClassVar

from decant.cache.errors import RemoteError
from decant.cache.remote.addresses import Address
from decant.cache.remote.folder import ChangedError, attempt
from decant.cache.remote.fsspec_folder import FsspecFolder

_SETTINGS = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"max_attempts": 2},
    "max_pool_connections": 64,  # a batch of random rows asks for a range of each table in each of its blocks
}


class S3Folder(FsspecFolder):
    """A prefix of a bucket: a `RemoteFolder`."""

    options: ClassVar[dict[str, Any]] = {**FsspecFolder.options, "config_kwargs": _SETTINGS}

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        if "@" in address.host or ":" in address.host:
            raise RemoteError(
                f"{self.shown}: credentials in an address of S3 are not taken; use AWS_ACCESS_KEY_ID or ~/.aws"
            )
        self._bucket = address.host

    def fetch(self, name: str, first: int, end: int, tag: str) -> bytes:
        from fsspec.asyn import sync

        key = self.address.child(name).path
        more = {"IfMatch": tag} if tag else {}

        async def get() -> bytes:
            found = await self.fs._call_s3(
                "get_object", Bucket=self._bucket, Key=key, Range=f"bytes={first}-{end - 1}", **more
            )
            async with found["Body"] as body:
                content: bytes = await body.read()
            return content

        try:
            content: bytes = sync(self.fs.loop, get)
        except OSError as error:
            if (
                tag and "PreconditionFailed" in f"{error.__cause__!r}{error}"
            ) or "412" in f"{error.__cause__!r}":
                raise ChangedError(f"{self.file_shown(name)}: was replaced while it was read") from None
            raise
        return content

    def leftovers(self, older: float, delete: bool) -> list[str]:
        """Also multipart uploads that killed processes have left: no listing of files shows them, and they cost
        space.
        """
        left = super().leftovers(older, delete)
        prefix = f"{self.address.path}/" if self.address.path else ""
        with contextlib.suppress(RemoteError):  # a right that few need
            for upload in self._call("list_multipart_uploads", Prefix=prefix).get("Uploads") or ():
                if (datetime.now(UTC) - upload["Initiated"]).total_seconds() >= older:
                    key = upload["Key"]
                    if delete:
                        self._call("abort_multipart_upload", Key=key, UploadId=upload["UploadId"])
                    left.append(f"{self.file_shown(key.removeprefix(prefix))}: an unfinished upload")
        return left

    def _call(self, method: str, **words: Any) -> Any:
        return attempt(self.shown, lambda: self.fs.call_s3(method, Bucket=self._bucket, **words))

    def _require_store(self) -> None:
        try:
            self._call("head_bucket")
        except FileNotFoundError:
            raise RemoteError(
                f"{self.shown}: there is no bucket {self._bucket}; make it, or mend the name"
            ) from None
