"""Datasets on the Hugging Face Hub. Files are read as from any web server, with ranges; a commit publishes.

A commit names the one that it follows, and the Hub refuses it where another came first; so a file never replaces
another's that was published meanwhile. The token is the one that huggingface_hub finds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from decant.cache.errors import RemoteError
from decant.cache.remote.addresses import Address
from decant.cache.remote.folder import Promises, attempt, passing
from decant.cache.remote.http import HttpFolder
from decant.cache.remote.progress import Advance

_FORM = "hf://datasets/OWNER/NAME"
CARD = "README.md"


class HubFolder(HttpFolder):
    """A folder of a dataset on the Hub: a `RemoteFolder`."""

    promises = Promises(ranges=True, lists=True, writes=True, conditional=True, notes=False)

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.promises = HubFolder.promises
        kind, *rest = f"{address.host}/{address.path}".split("/")
        if kind != "datasets" or len(rest) < 2 or not all(rest[:2]):
            raise RemoteError(f"{self.shown}: expected {_FORM}, or a folder in it")
        name, _, revision = rest[1].partition("@")
        self.repository, self.revision, self._inner = (
            f"{rest[0]}/{name}",
            revision or "main",
            "/".join(rest[2:]),
        )

    def _connect(self) -> Any:
        import fsspec

        return fsspec.filesystem("https", **self.options)

    def url_of(self, name: str) -> str:
        from huggingface_hub import hf_hub_url

        url: str = hf_hub_url(self.repository, self._path(name), repo_type="dataset", revision=self.revision)
        return url

    def headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        found: dict[str, str] = build_hf_headers(library_name="decant")
        return found

    def names(self) -> dict[str, int]:
        return {name: size for name, (size, _) in self._files().items()}

    def put(self, name: str, path: Path, advance: Advance) -> bool:
        made = self._commit(name, str(path), f"Add {name}")
        advance(path.stat().st_size)
        return made

    def put_small(self, name: str, content: bytes, *, replace: bool = False) -> bool:
        return self._commit(name, content, f"Add {name}", replace=replace)

    def remove(self, name: str) -> None:
        from huggingface_hub import CommitOperationDelete

        if name in self._files():
            gone = [CommitOperationDelete(self._path(name))]
            attempt(self.shown, lambda: self._create_commit(gone, f"Remove {name}", None))

    def card(self) -> str | None:
        """The README of the dataset; None where there is none."""
        at_top = HubFolder(Address.of(f"hf://datasets/{self.repository}@{self.revision}"))
        found = at_top.stat(CARD)
        if found is None:
            return None

        def ask() -> bytes:
            parts: list[bytes] = []
            at_top.copy_to(CARD, parts.append)
            return b"".join(parts)

        return attempt(self.shown, ask).decode(errors="replace")

    def put_card(self, text: str) -> None:
        """Makes the README of the dataset, or replaces it."""
        HubFolder(Address.of(f"hf://datasets/{self.repository}@{self.revision}")).put_small(
            CARD, text.encode(), replace=True
        )

    def _path(self, name: str) -> str:
        return "/".join(part for part in (self._inner, name) if part)

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(library_name="decant")

    def _files(self) -> dict[str, tuple[int, str]]:
        """The files of the folder: size and digest of each."""

        def ask() -> dict[str, tuple[int, str]]:
            found = self._api().list_repo_tree(
                self.repository, self._inner or None, repo_type="dataset", revision=self.revision
            )
            files = [entry for entry in found if hasattr(entry, "size")]
            return {entry.path.rpartition("/")[2]: (int(entry.size), str(entry.blob_id)) for entry in files}

        with self._named_errors():
            return attempt(self.shown, ask)

    def _commit(self, name: str, content: str | bytes, message: str, *, replace: bool = False) -> bool:
        """Adds a file by a commit that follows the one that was looked at; whether it was this that made it."""
        from huggingface_hub import CommitOperationAdd

        def ask() -> bool:
            parent = self._api().repo_info(self.repository, repo_type="dataset", revision=self.revision).sha
            if not replace and name in self._files():
                return False
            add = [CommitOperationAdd(self._path(name), content)]
            self._create_commit(add, message, parent)
            return True

        with self._named_errors():
            return attempt(self.shown, ask)

    def _create_commit(self, operations: list[Any], message: str, parent: str | None) -> None:
        try:
            self._api().create_commit(
                self.repository,
                operations,
                commit_message=message,
                repo_type="dataset",
                revision=self.revision,
                parent_commit=parent,
            )
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (409, 412):  # another commit came first
                raise passing("another commit came first") from None
            raise

    @contextlib.contextmanager
    def _named_errors(self) -> Any:
        """Has what the library says of a dataset that is not there be an error that says what to do."""
        try:
            yield
        except FileNotFoundError as error:
            if type(error).__name__ != "EntryNotFoundError":
                raise
        except RemoteError as error:
            if "RepositoryNotFoundError" in str(error) or "RevisionNotFoundError" in str(error):
                raise RemoteError(
                    f"{self.shown}: there is no such dataset, or your token may not see it; make it with `hf repo "
                    f"create {self.repository} --repo-type dataset`"
                ) from None
            raise
