"""The tokens of a part's texts, in memory; many texts are tokenised once, into a pack that all processes fill together.

A row of the pack is a text: how many tokens it has, the tokens, and zeros up to the largest number. What decides them,
the texts, the tokenizer and the versions of its libraries, is its key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import StorageError, Store
from decant.pipeline.data.image_pack import FOLDER, SUFFIX, Layout
from decant.pipeline.data.pack_filling import find_or_build
from decant.pipeline.data.pack_room import require_room
from decant.pipeline.ranks.launch import launched
from decant.pipeline.support.notices import say
from decant.pipeline.support.progress import track

WORTH_PACKING = 10_000  # texts; fewer are tokenised in the time that it takes to say so
_TOGETHER = 1000  # texts that are tokenised in one call
_LIBRARIES = ("transformers", "tokenizers")


def tokenise(
    texts: Sequence[str], tokenizer: Any, max_length: int, split: str, pack: str
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(tokens of all texts, (N + 1,) where each begins): with the special tokens that the tokenizer adds, each text cut
    at `max_length`. pack: `data.pack`, whether they are kept beside the caches. Raises StorageError or OSError where
    that is "always" and they cannot be.
    """
    key = _key(texts, tokenizer, max_length)
    worth = pack == "always" or len(texts) >= WORTH_PACKING or launched() is not None
    if key is not None and worth and pack != "never":
        try:
            return _packed(texts, tokenizer, max_length, split, pack, key)
        except (OSError, StorageError) as error:
            if pack == "always":
                raise
            say(f"{error}; the texts are tokenised without a pack")
    tokens: list[NDArray[np.int32]] = []
    for start in track(range(0, len(texts), _TOGETHER), "tokenising"):
        tokens += _tokens(texts[start : start + _TOGETHER], tokenizer, max_length)
    return np.concatenate(tokens), np.cumsum([0, *map(len, tokens)])


def _packed(
    texts: Sequence[str], tokenizer: Any, max_length: int, split: str, pack: str, key: str
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    layout = Layout(key, len(texts), (4 * (1 + max_length),))
    path = Store().root / FOLDER / f"text-{split}-{max_length}-{key[:16]}{SUFFIX}"

    def rows(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        found = np.zeros((len(indices), 1 + max_length), "<i4")
        tokens = _tokens([texts[index] for index in indices.tolist()], tokenizer, max_length)
        for row, of_text in zip(found, tokens, strict=True):
            row[0], row[1 : 1 + len(of_text)] = len(of_text), of_text
        return found.view(np.uint8)

    if pack == "auto" and not path.exists():
        require_room(path, layout.size)
    made = find_or_build(path, layout, rows, lambda: None, "tokenising", threads=1)
    lengths, ids = [np.zeros(1, np.int64)], [np.empty(0, np.int32)]
    for start in range(0, len(texts), _TOGETHER):
        some = made.images(np.arange(start, min(len(texts), start + _TOGETHER))).view("<i4")
        lengths.append(some[:, 0].astype(np.int64))
        ids.append(some[:, 1:][np.arange(max_length) < some[:, :1]].astype(np.int32))
    return np.concatenate(ids), np.cumsum(np.concatenate(lengths))


def _tokens(texts: Sequence[str], tokenizer: Any, max_length: int) -> list[NDArray[np.int32]]:
    ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return [np.array(row, np.int32) for row in ids]


def _key(texts: Sequence[str], tokenizer: Any, max_length: int) -> str | None:
    """SHA-256 of all that decides the tokens; None of a tokenizer that does not say what it does, as one in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    settings = [type(tokenizer).__name__, backend.to_str(), str(getattr(tokenizer, "truncation_side", ""))]
    versions = [metadata.version(name) for name in _LIBRARIES]
    digest = hashlib.sha256(json.dumps([max_length, settings, versions]).encode())
    for text in texts:
        encoded = text.encode(errors="surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()
