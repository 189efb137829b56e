"""The tokens of a recipe of a language model: its tokenizer, its token files, and the samples of each part."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.opening import read_file
from decant.pipeline.config.settings import DataSettings, Settings
from decant.pipeline.corpus import Corpus, TokenSamples, load_tokenizer, split_documents
from decant.pipeline.corpus.build import TokenRequest, texts_identity
from decant.pipeline.corpus.documents import Chat, Completion, Document
from decant.pipeline.corpus.made_tokenizers import bpe_size, byte_tokenizer, learn_bpe
from decant.pipeline.corpus.parts import shared_documents
from decant.pipeline.corpus.sources import read_documents
from decant.pipeline.errors import DataError
from decant.pipeline.networks.causal import ELSEWHERE
from decant.pipeline.phases.language.sources import PARTS, Part, Texts, texts_of
from decant.pipeline.support.notices import say_once

_BYTES = "bytes"
_MAX_LENGTH = 128
_FEW_SHARED = 0.01
_MOST_TEMPLATE_BYTES = 1 << 20


@dataclass(frozen=True)
class LanguageData:
    """The texts of a recipe as tokens. A token file is written into the run folder when it is first needed, and found
    from then on; so is a tokenizer that is learnt from the texts.
    """

    settings: Settings
    base: Path
    """The run folder of the recipe."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that there are, in the order train, validation, test."""
        return tuple(part for part in PARTS if part in self._texts.own or part in self._texts.shares)

    @property
    def max_length(self) -> int:
        """The most tokens of a sample."""
        return self._data.max_length or _MAX_LENGTH

    @property
    def num_outputs(self) -> int:
        """C, the number of the tokenizer's tokens."""
        return int(self.samples("train").corpus.num_ids)

    def samples(self, part: Part) -> TokenSamples:
        """The samples of a part. Raises DataError where texts cannot be read or tokenised, or a part has none."""
        return self._samples[part]

    @cached_property
    def tokenizer(self) -> Any:
        """What makes tokens of the texts. Raises DataError."""
        given, teacher = self._data.tokenizer, self.settings.teacher.network.name.removeprefix(ELSEWHERE)
        if given is None:
            tokenizer = load_tokenizer(teacher, "teacher.network: the tokenizer of")
        else:
            tokenizer = self._made(given) or load_tokenizer(given, "data.tokenizer")
        if self._data.chat_template is not None:
            tokenizer.chat_template = _read_template(Path(self._data.chat_template))
        return tokenizer

    def digest(self, part: Part) -> str:
        """SHA-256 of what a part is."""
        return hashlib.sha256(json.dumps(self._fingerprint(part), sort_keys=True).encode()).hexdigest()

    @cached_property
    def teacher_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a teacher's run folder depends on."""
        return {"data": self._fingerprint("train"), "views": {}}

    @property
    def student_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a cache and a student's run folder depend on: those of the teacher."""
        return self.teacher_fingerprints

    @property
    def validation_fingerprint(self) -> dict[str, Any] | None:
        """The fingerprint of the validation part; None where the recipe has none."""
        return self._fingerprint("validation") if "validation" in self.parts else None

    def say_what_is_shared(self) -> None:
        """Says how many documents of a part of its own are in the training part too, where there are more than 1 %."""
        for part, corpus in self._corpora.items():
            if part == "train":
                continue
            shared = shared_documents(corpus, self._corpora["train"])
            if len(shared) > _FEW_SHARED * len(corpus):
                say_once(
                    f"warning: {self._data.root}: {len(shared):,} of {len(corpus):,} documents of the {part} part are "
                    f"in the training part too, the first is its document {shared[0]:,}: its figures are too good; "
                    "take them out of one of the two"
                )

    @property
    def is_prepared(self) -> bool:
        """Whether every token file is there, so that nothing is written for it."""
        learnt = self._learnt_folder
        if learnt is not None and not learnt.is_dir():
            return False
        return all(self._path(part).exists() for part in self._texts.own)

    @property
    def _data(self) -> DataSettings:
        return self.settings.data

    @cached_property
    def _texts(self) -> Texts:
        return texts_of(self._data)

    @cached_property
    def _requests(self) -> dict[Part, TokenRequest]:
        data = self._data
        return {
            part: TokenRequest.of(
                source,
                self.tokenizer,
                data.targets or "all",
                data.column,
                data.separator,
                data.end_of_text is not False,
            )
            for part, source in self._texts.own.items()
        }

    def _path(self, part: Part) -> Path:
        return self.base / f"tokens-{self._requests[part].digest}.tokens"

    @cached_property
    def _corpora(self) -> dict[Part, Corpus]:
        return {part: request.found_or_made(self._path(part)) for part, request in self._requests.items()}

    @cached_property
    def _samples(self) -> dict[Part, TokenSamples]:
        data, shares = self._data, self._texts.shares
        documents = _divided(self._corpora["train"], shares) if shares else {}
        samples = {
            part: TokenSamples(
                self._corpora.get(part, self._corpora["train"]),
                max_length=self.max_length,
                rows=data.rows or "documents",
                documents=documents.get(part),
                truncation=data.truncation or "right",
                across=bool(data.across),
            )
            for part in self.parts
        }
        return samples

    def _fingerprint(self, part: Part) -> dict[str, Any]:
        samples = self.samples(part)
        return {**samples.identity, "length": len(samples)}

    @cached_property
    def _learnt_folder(self) -> Path | None:
        """Where a tokenizer lies that is learnt from the texts; None of another."""
        size = bpe_size(self._data.tokenizer or "")
        if size is None:
            return None
        identity = {**texts_identity(self._read()), "size": size}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        return self.base / f"tokenizer-{digest}"

    def _read(self) -> Iterator[tuple[str, Document]]:
        return read_documents(self._texts.own["train"], self._data.column, self._data.separator)

    def _made(self, name: str) -> Any:
        """A tokenizer that needs no download; None where `name` is of one that is there."""
        if name == _BYTES:
            return byte_tokenizer()
        folder = self._learnt_folder
        if folder is None:
            return None
        if not folder.is_dir():
            learnt = learn_bpe(
                (text for _, document in self._read() for text in _of(document)), int(name[4:])
            )
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tokenizer-", dir=folder.parent) as draft:
                whole = Path(draft, "whole")
                learnt.save_pretrained(whole)
                try:
                    whole.rename(folder)  # at once whole, or not there
                except OSError:
                    if not folder.is_dir():  # another process was quicker
                        raise
        return load_tokenizer(str(folder))


def _of(document: Document) -> list[str]:
    """The texts in a document."""
    if isinstance(document, Completion):
        return [document.prompt, document.completion]
    if isinstance(document, Chat):
        return [str(message.get("content") or "") for message in document.messages]
    return [document.text]


def _divided(corpus: Corpus, shares: Mapping[Part, float]) -> dict[str, NDArray[np.int64]]:
    """The documents of each part. Test documents are the same whether or not others validate."""
    test, validation = shares.get("test", 0.0), shares.get("validation", 0.0)
    wanted = {"test": test, "train": 1 - test - validation, "validation": validation}
    return split_documents(corpus, {name: share for name, share in wanted.items() if share})


def _read_template(path: Path) -> str:
    try:
        return read_file(path, most=_MOST_TEMPLATE_BYTES).decode()
    except UnicodeDecodeError:
        raise DataError(f"data.chat_template: {path}: is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"data.chat_template: {path}: cannot be read: {error.strerror or error}") from None
