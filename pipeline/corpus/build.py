"""`tokenise`: texts into a token file, which is found the next time."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from decant.cache import require_equal
from decant.cache.io.files import storage_error
from decant.cache.io.locks import exclusive, lock_path
from decant.pipeline.corpus.documents import Column, Document
from decant.pipeline.corpus.sources import Source, read_documents
from decant.pipeline.corpus.special_tokens import SpecialTokens
from decant.pipeline.corpus.token_file import Corpus, write_tokens
from decant.pipeline.corpus.tokenizer import load_tokenizer, num_ids, tokenizer_identity
from decant.pipeline.corpus.tokens import Targets, Tokeniser, Tokens
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say, say_once
from decant.pipeline.support.progress import progress

_TOGETHER = 256  # documents that are tokenised in one call


def tokenise(
    texts: Source,
    tokenizer: Any,
    path: str | os.PathLike[str],
    *,
    targets: Targets = "all",
    column: Column = None,
    separator: str | None = None,
    end_of_text: bool = True,
) -> Corpus:
    """Tokenises texts into the file at `path`; finds what is there.

    texts: a .txt, .jsonl or .parquet file, a folder of them or a dataset that `save_to_disk` wrote, a list of `Path`;
    or rows, as a list of texts or a `datasets.Dataset`. A row is a text, or has the column `text`, `messages` (a chat,
    written by the tokenizer's template), or `prompt` and `completion`; `column` names others. separator: what stands
    between the documents of a .txt file; None takes a file as one document. tokenizer: one of transformers, or its
    folder or name.

    targets: which tokens are learnt from, "all", or "assistant": what the assistant of a chat writes, and completions.
    end_of_text: whether texts and completions end in the tokenizer's end-of-text token. Empty documents are left out,
    which is said.

    The file is written once and whole: a process that was killed leaves none. One at `path` of other texts, another
    tokenizer or other options is refused, with every field that differs. Raises DataError, naming the document, where
    texts cannot be read or tokenised; MismatchError, DamagedError, StorageError.

    >>> import tempfile
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer  # or any of transformers
    >>> folder = tempfile.TemporaryDirectory()
    >>> corpus = tokenise(["a text", "and another"], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> len(corpus), corpus.document(0).tolist()
    (2, [65, 221, 84, 69, 88, 84, 0])
    >>> folder.cleanup()
    """
    place = Path(path)
    request = TokenRequest.of(texts, tokenizer, targets, column, separator, end_of_text)
    return request.found_or_made(place)


@dataclass(frozen=True)
class TokenRequest:
    """Texts that are to become tokens, and how. Reads all texts once, for their digest."""

    identity: dict[str, Any]
    """What the token file is of: the texts, the tokenizer and the options. Equal ones have one file."""
    tokenizer: Any
    _read: Callable[[], Iterator[tuple[str, Document]]]
    _tokeniser: Tokeniser

    @classmethod
    def of(
        cls,
        texts: Source,
        tokenizer: Any,
        targets: Targets = "all",
        column: Column = None,
        separator: str | None = None,
        end_of_text: bool = True,
    ) -> TokenRequest:
        """The arguments are those of `tokenise`. Raises DataError."""
        tokenizer = load_tokenizer(str(tokenizer)) if isinstance(tokenizer, str | os.PathLike) else tokenizer
        if not hasattr(tokenizer, "get_vocab") or not callable(tokenizer):
            raise DataError(
                f"tokenizer: expected one of transformers, found {type(tokenizer).__name__}; wrap one of tokenizers as "
                "transformers.PreTrainedTokenizerFast(tokenizer_object=…)"
            )
        read = partial(read_documents, texts, column, separator)
        identity = {
            "texts": texts_identity(read()),
            "tokenizer": tokenizer_identity(tokenizer),
            "options": {"targets": targets, "end_of_text": end_of_text},
        }
        return cls(identity, tokenizer, read, Tokeniser(tokenizer, targets, end_of_text))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of the identity, for the name of a file."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]

    def found_or_made(self, place: Path) -> Corpus:
        """The token file at `place`, which is written where there is none. Raises as `tokenise` does."""
        if place.exists():
            return _found(place, self.identity, self.tokenizer)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(lock_path(place), waiting=lambda holder: say_once(f"{place}: waits for {holder}")):
                if not place.exists():  # another process may have written it while this one waited
                    masked = self.identity["options"]["targets"] != "all"
                    _write(
                        place,
                        self._read(),
                        self._tokeniser,
                        dict(self.identity),
                        num_ids(self.tokenizer),
                        masked=masked,
                    )
        except OSError as error:
            raise storage_error(error, place, "writing the tokens") from error
        return _found(place, self.identity, self.tokenizer)


def _found(path: Path, identity: dict[str, Any], tokenizer: Any) -> Corpus:
    try:
        found = Corpus(path, tokenizer)
    except OSError as error:
        raise storage_error(error, path, "reading the tokens") from error
    require_equal(
        {**identity, "tokens": None},
        {**found.identity, "tokens": None},
        subject=f"{path}: holds other tokens than are asked for",
        hint="Give another path, or delete the file.",
        sections=("texts", "tokenizer", "options"),
    )
    return found


def _write(
    path: Path,
    documents: Iterator[tuple[str, Document]],
    tokeniser: Tokeniser,
    identity: dict[str, Any],
    count: int,
    *,
    masked: bool,
) -> None:
    digest, empty, special = _Digest(), _Empty(), SpecialTokens(tokeniser.tokenizer)

    def tokens() -> Iterator[Tokens]:
        kept = special.looked_at(empty.without(digest.seen(documents)))
        with progress("tokenising", identity["texts"]["count"]) as advance:
            for some in iter(lambda: list(itertools.islice(kept, _TOGETHER)), []):
                for (where, _), found in zip(some, tokeniser.encode(some), strict=True):
                    _check(found, count, where)
                    special.see(where, found)
                    yield found
                advance(len(some))
        if digest.identity() != identity["texts"]:
            raise DataError(f"{path}: the texts have changed while they were tokenised; run it again")
        if empty.count == digest.count:
            what = (
                f"all documents are empty, the first is {empty.first}"
                if digest.count
                else "there are no documents"
            )
            raise DataError(f"{path}: {what}")

    write_tokens(path, tokens(), count, identity, masked=masked)
    if empty.count:
        say(
            f"{path}: {empty.count:,} of {digest.count:,} documents are empty and left out, the first is {empty.first}"
        )
    special.say(path)


def _check(tokens: Tokens, count: int, where: str) -> None:
    if not len(tokens.ids):
        raise DataError(f"{where}: the tokenizer makes no tokens of it")
    if (tokens.ids < 0).any() or (tokens.ids >= count).any():
        raise DataError(
            f"{where}: has the token {int(np.max(tokens.ids)):,}, and the tokenizer {count:,} tokens"
        )


def texts_identity(documents: Iterator[tuple[str, Document]]) -> dict[str, Any]:
    """How many documents there are, and the SHA-256 of their content."""
    digest = _Digest()
    for _ in digest.seen(documents):
        pass
    return digest.identity()


class _Digest:
    """SHA-256 of the content of documents, whatever files they lie in."""

    def __init__(self) -> None:
        self.count, self._sha256 = 0, hashlib.sha256()

    def seen(self, documents: Iterator[tuple[str, Document]]) -> Iterator[tuple[str, Document]]:
        """The documents, each of which is counted and goes into the digest."""
        for where, document in documents:
            encoded = json.dumps(document.content, sort_keys=True, separators=(",", ":")).encode()
            self._sha256.update(b"%d:" % len(encoded) + encoded)
            self.count += 1
            yield where, document

    def identity(self) -> dict[str, Any]:
        return {"count": self.count, "sha256": self._sha256.hexdigest()}


class _Empty:
    """Counts documents without content, and leaves them out."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def without(self, documents: Iterator[tuple[str, Document]]) -> Iterator[tuple[str, Document]]:
        for where, document in documents:
            if document.is_empty:
                self.count += 1
                self.first = self.first or where
            else:
                yield where, document
