"""Samples of the tests' own sentences, and a cache of a small network of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decant.encodings import Sparse
from decant.language import TokenSamples, cache_logits, tokenise
from tests.helpers import language


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return language.tokenizer()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("language")


@pytest.fixture(scope="session")
def samples(folder: Path, tokenizer: Any) -> TokenSamples:
    """40 sentences as they are."""
    return TokenSamples(tokenise(language.sentences(40), tokenizer, folder / "texts.tokens"), max_length=64)


@pytest.fixture(scope="session")
def teacher() -> Any:
    """Of 352 outputs, 12 more than there are tokens."""
    return language.llama(352)


@pytest.fixture(scope="session")
def cache(folder: Path, samples: TokenSamples, teacher: Any) -> Any:
    return cache_logits(
        teacher, samples, folder / "teacher.h5", encoding=Sparse(head=16), show_progress=False
    )
