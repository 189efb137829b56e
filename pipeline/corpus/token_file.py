"""The token file: the tokens of every document, one after the other, in one file that is mapped into memory.

A page with what the tokens are of, the ids (T,) uint16 or uint32, the first token of each document (D + 1,) uint64, a
bit a token that says whether it is a target (absent where all are), then an entry for each block of 64 KiB
(`decant.cache.io.blockfile`). The file appears whole and is never written again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from decant.cache.io import bus_errors
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.block_layout import expected_entry
from decant.cache.io.files import read_all, replacing
from decant.cache.io.mapped import MappedFile
from decant.cache.io.opening import open_read
from decant.cache.io.unchanged import Unchanged
from decant.pipeline.corpus.tokens import Tokens
from decant.pipeline.errors import DamagedError
from decant.pipeline.support.checked_json import parse

_BEGINNING = b"decant-tokens 1\n"
_PAGE = 8192
_BLOCK_BYTES = 1 << 16
_AGAIN = "delete it and tokenise the texts again"
_MOST = 2**48


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a token file."""

    num_tokens: int
    num_documents: int
    id_bytes: int
    masked: bool
    """Whether some tokens are no targets."""

    @property
    def offsets_at(self) -> int:
        """Where the table with the first token of each document begins."""
        return _PAGE + -(-self.num_tokens * self.id_bytes // 8) * 8

    @property
    def mask_at(self) -> int:
        """Where the bits begin that say which tokens are targets."""
        return self.offsets_at + 8 * (self.num_documents + 1)

    @property
    def entries_offset(self) -> int:
        """Where the table with an entry a block begins."""
        return self.mask_at + (-(-self.num_tokens // 64) * 8 if self.masked else 0)

    @property
    def num_blocks(self) -> int:
        """Blocks of everything between the header and the entries."""
        return -(-(self.entries_offset - _PAGE) // _BLOCK_BYTES)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.entries_offset + 8 * self.num_blocks

    def ranges(self, block: int) -> tuple[tuple[int, int]]:
        """The bytes of a block: first byte and end."""
        first = _PAGE + block * _BLOCK_BYTES
        return ((first, min(self.entries_offset, first + _BLOCK_BYTES)),)

    @property
    def id_dtype(self) -> np.dtype[Any]:
        """Of a token as it is stored."""
        return np.dtype(f"<u{self.id_bytes}")


class Corpus:
    """The tokens of many documents, mapped from a token file. `decant.language.tokenise` makes one.

    Blocks are checked against their checksums when they are first read. Pickled, it is its path.
    """

    def __init__(self, path: str | os.PathLike[str], tokenizer: Any = None) -> None:
        """tokenizer: to show tokens as text in messages; nothing else needs it.

        Raises FileNotFoundError and other OSErrors, DamagedError where it is no whole token file.
        """
        self.path, self.tokenizer = Path(path), tokenizer
        with open_read(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size < _PAGE:
                raise self._damaged("not a token file")
            mapped = MappedFile(file.fileno(), size, self.path)
        self.layout, self._header = _header(mapped[:_PAGE], self._damaged)
        if size != self.layout.size:
            raise self._damaged(f"expected {self.layout.size:,} bytes, found {size:,}")
        content = memoryview(mapped)
        self._checks = BlockChecks(self.layout, lambda first, end: content[first:end])
        self._ids = np.frombuffer(mapped, self.layout.id_dtype, self.num_tokens, _PAGE)
        self._bits = (
            np.frombuffer(mapped, np.uint8, -(-self.num_tokens // 8), self.layout.mask_at)
            if self.layout.masked
            else None
        )
        self._unchanged = Unchanged(mapped, self._checks, lambda block: f"block {block:,}", hint=_AGAIN)
        self._check(self.layout.offsets_at, self.layout.mask_at)
        self.offsets: NDArray[np.int64] = np.frombuffer(
            mapped, "<u8", self.num_documents + 1, self.layout.offsets_at
        ).astype(np.int64)
        """(D + 1,): document i has the tokens offsets[i] to offsets[i + 1]."""
        if self.offsets[0] != 0 or self.offsets[-1] != self.num_tokens or (np.diff(self.offsets) < 1).any():
            raise self._damaged("its documents do not follow one another")

    def __reduce__(self) -> tuple[Any, ...]:
        return Corpus, (self.path, self.tokenizer)

    def __len__(self) -> int:
        return self.num_documents

    @property
    def num_documents(self) -> int:
        """D."""
        return self.layout.num_documents

    @property
    def num_tokens(self) -> int:
        """T, of all documents together."""
        return self.layout.num_tokens

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the tokens are of: `texts`, `tokenizer` and `options`, and the SHA-256 of the tokens themselves."""
        return dict(self._header["identity"])

    @property
    def num_ids(self) -> int:
        """How many tokens the tokenizer knows; each id is below."""
        return int(self._header["identity"]["tokenizer"]["size"])

    @property
    def all_targets(self) -> bool:
        """Whether every token is learnt from."""
        return not self.layout.masked

    def tokens(self, first: int, end: int) -> NDArray[np.int64]:
        """(end − first,) ids: a copy. Raises DamagedError where they are not as they were written."""
        size = self.layout.id_bytes
        self._check(_PAGE + first * size, _PAGE + end * size)
        found = self._ids[first:end].astype(np.int64)
        self._unchanged.require_readable()
        return found

    def targets(self, first: int, end: int) -> NDArray[np.bool_]:
        """(end − first,) which tokens are learnt from. Raises DamagedError."""
        if self._bits is None:
            return np.ones(end - first, np.bool_)
        low, high = first // 8, -(-end // 8)
        self._check(self.layout.mask_at + low, self.layout.mask_at + high)
        bits = np.unpackbits(self._bits[low:high], bitorder="little")
        self._unchanged.require_readable()
        return bits[first - 8 * low : end - 8 * low].astype(np.bool_)

    def document(self, index: int) -> NDArray[np.int64]:
        """(L,) ids of one document."""
        return self.tokens(*self.offsets[index : index + 2].tolist())

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the file is no longer what was read from it."""
        bus_errors.guard()
        self._unchanged.require(checksums=checksums)

    def _check(self, first: int, end: int) -> None:
        bus_errors.guard()
        if self._checks.all_sound or end <= first:
            return
        blocks = np.arange((first - _PAGE) // _BLOCK_BYTES, (end - 1 - _PAGE) // _BLOCK_BYTES + 1)
        block = self._checks.first_damaged(blocks)
        if block is not None:
            self._unchanged.require_readable()
            raise self._damaged(f"block {block:,} is not as it was written")

    def _damaged(self, why: str) -> DamagedError:
        return DamagedError(f"{self.path}: {why}; {_AGAIN}")


def write_tokens(
    path: Path, documents: Iterator[Tokens], num_ids: int, identity: dict[str, Any], masked: bool
) -> int:
    """Writes a token file; returns how many documents it has. `identity` may be completed by what `documents` does.

    Nothing has the name `path` until the file is whole and synced. Raises OSError.
    """
    dtype = np.dtype("<u2" if num_ids <= 1 << 16 else "<u4")
    offsets, bits, digest = [0], _Bits(), hashlib.sha256()
    with replacing(path) as draft:
        draft.seek(_PAGE)
        for ids, targets in documents:
            digest.update(ids.astype("<u4").data)
            draft.write(ids.astype(dtype).data)
            offsets.append(offsets[-1] + len(ids))
            if masked:
                bits.add(targets)
        layout = Layout(offsets[-1], len(offsets) - 1, dtype.itemsize, masked)
        draft.seek(layout.offsets_at)
        draft.write(np.array(offsets, "<u8").data)
        if masked:
            draft.write(bits.whole().ljust(layout.entries_offset - layout.mask_at, b"\0"))
            digest.update(bits.whole())
        identity["tokens"] = {"count": layout.num_tokens, "sha256": digest.hexdigest()}
        _finish(draft, layout, identity, path)
    return layout.num_documents


def _finish(draft: BinaryIO, layout: Layout, identity: Mapping[str, Any], path: Path) -> None:
    """Writes the entries of all blocks, and then the header."""
    draft.flush()
    fd = draft.fileno()

    def read(first: int, end: int) -> bytes:
        return read_all(fd, end - first, first, path).ljust(end - first, b"\0")

    entries = [expected_entry(layout, read, block) for block in range(layout.num_blocks)]
    draft.truncate(layout.entries_offset)
    draft.seek(layout.entries_offset)
    draft.write(np.array(entries, "<u8").data)
    header = {
        "identity": identity,
        "num_tokens": layout.num_tokens,
        "num_documents": layout.num_documents,
        "id_bytes": layout.id_bytes,
        "masked": layout.masked,
    }
    encoded = _BEGINNING + json.dumps(header, sort_keys=True).encode("ascii")
    assert len(encoded) <= _PAGE, "an identity is a few digests"
    draft.seek(0)
    draft.write(encoded.ljust(_PAGE, b"\0"))


def _header(page: bytes, damaged: Callable[[str], DamagedError]) -> tuple[Layout, dict[str, Any]]:
    """Layout and content of a first page. Raises what `damaged` makes."""
    if not page.startswith(_BEGINNING):
        raise damaged("not a token file, or one of another version")
    try:
        header = parse(page.removeprefix(_BEGINNING).rstrip(b"\0"))
        counts = [header[name] for name in ("num_tokens", "num_documents", "id_bytes")]
        sizes = [header["identity"]["tokenizer"]["size"], *counts]
        if not all(type(value) is int and 0 < value < _MOST for value in sizes) or counts[2] not in (2, 4):
            raise ValueError
        return Layout(counts[0], counts[1], counts[2], header["masked"] is True), header
    except (ValueError, KeyError, TypeError):
        raise damaged("its first page cannot be read") from None


class _Bits:
    """Booleans as bits, the first in the lowest bit of the first byte."""

    def __init__(self) -> None:
        self._whole, self._rest = bytearray(), np.empty(0, np.bool_)

    def add(self, values: NDArray[np.bool_]) -> None:
        values = np.concatenate([self._rest, values])
        count = len(values) // 8 * 8
        self._whole += np.packbits(values[:count], bitorder="little").tobytes()
        self._rest = values[count:]

    def whole(self) -> bytes:
        """All of them; the last byte is filled with zeros."""
        return bytes(self._whole) + np.packbits(self._rest, bitorder="little").tobytes()
