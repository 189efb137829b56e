"""What a user says of a server that has the teacher."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import get_args

from decant.pipeline.config.server_settings import (
    MOST_REQUESTS,
    MOST_SECONDS,
    DialectName,
    problem_of_url,
    problem_of_variable,
)
from decant.pipeline.errors import DataError


@dataclass(frozen=True)
class ServedTeacher:
    """A causal language model behind a server that tells the log-probabilities of a prompt's tokens: vLLM, SGLang,
    llama.cpp, or another with the completions of OpenAI and `echo`. Given to `decant.language.cache_logits` in place of
    a network, it fills a cache of `Sparse(head=k)`: the k likeliest tokens, and the probability of all others together.

    Nothing is asked before that. Raises DataError for settings that cannot be.

    >>> ServedTeacher("http://localhost:8000/v1", model="qwen", concurrency=32).model
    'qwen'
    """

    url: str
    """Address of the server, as "http://localhost:8000/v1"; the /v1 may be left out."""
    model: str | None = None
    """By the name that the server gives it; None takes the only one that it serves."""
    dialect: DialectName | None = None
    """How it is asked; None finds out by a small request."""
    api_key_variable: str | None = None
    """The name of the environment variable that holds the key which the server wants."""
    concurrency: int = 16
    """How many requests are under way at a time, beside one that compares."""
    timeout: float = 600.0
    """Seconds that one answer may take."""
    patience: float = 600.0
    """Seconds for which a request is repeated while the server cannot be reached, or says that it is busy."""

    def __post_init__(self) -> None:
        for key, problem in (
            ("url", problem_of_url(self.url)),
            ("api_key_variable", problem_of_variable(self.api_key_variable)),
        ):
            if problem is not None:
                raise DataError(f"{key}: {problem}")
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise DataError(f"model: expected a name, found {self.model!r}")
        if self.dialect is not None and self.dialect not in get_args(DialectName):
            raise DataError(
                f"dialect: expected one of {', '.join(get_args(DialectName))}, found {self.dialect!r}"
            )
        if type(self.concurrency) is not int or not 1 <= self.concurrency <= MOST_REQUESTS:
            raise DataError(
                f"concurrency: expected 1 to {MOST_REQUESTS:,} requests, found {self.concurrency!r}"
            )
        for name in ("timeout", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < MOST_SECONDS:
                raise DataError(f"{name}: expected seconds above 0, found {value!r}")

    @property
    def root(self) -> str:
        """The address without a /v1 at its end."""
        return self.url.rstrip("/").removesuffix("/v1").rstrip("/")

    def key(self) -> str | None:
        """The key. Raises DataError where the variable is not set, or holds what no header can."""
        if self.api_key_variable is None:
            return None
        found = os.environ.get(self.api_key_variable, "").strip()
        if not found:
            raise DataError("api_key_variable: the environment variable of that name is not set, or empty")
        if not found.isascii() or not found.isprintable():
            raise DataError(
                "api_key_variable: the variable holds what no key can: letters that are not ASCII"
            )
        return found
