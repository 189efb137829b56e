"""Samples of the tests' own sentences, a small network, and what its own pass makes of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decant.cache import LogitCache
from decant.encodings import Sparse
from decant.language import TokenSamples, cache_logits, tokenise
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers import language

HEAD = Sparse(head=8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The network is untrained, which every pass would say."""
    forget_what_was_said()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*likely not a trained")
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return language.tokenizer()


@pytest.fixture(scope="session")
def samples(folder: Path, tokenizer: Any) -> TokenSamples:
    """12 sentences as they are."""
    return TokenSamples(tokenise(language.sentences(12), tokenizer, folder / "texts.tokens"), max_length=64)


@pytest.fixture(scope="session")
def network() -> Any:
    return language.llama(340)


@pytest.fixture(scope="session")
def local(folder: Path, samples: TokenSamples, network: Any) -> LogitCache:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cache_logits(network, samples, folder / "local.h5", encoding=HEAD, show_progress=False)
