"""What a user says of a server that has the teacher."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from urllib.parse import SplitResult, urlsplit

from decant.cache.io.redaction import redacted
from decant.pipeline.errors import DataError

DialectName: TypeAlias = Literal["vllm", "sglang", "llama.cpp", "openai"]


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
        parts = _split(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DataError(
                f"url: expected http:// or https:// and a host, found {redacted(str(self.url))!r}"
            )
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise DataError(
                "url: expected an address without a user, a password or a query, as these would be written into logs; "
                "name the environment variable that holds the key: api_key_variable"
            )
        if self.model is not None and (not isinstance(self.model, str) or not self.model):
            raise DataError(f"model: expected a name, found {self.model!r}")
        if self.dialect is not None and self.dialect not in get_args(DialectName):
            raise DataError(
                f"dialect: expected one of {', '.join(get_args(DialectName))}, found {self.dialect!r}"
            )
        if type(self.concurrency) is not int or not 1 <= self.concurrency <= 1024:
            raise DataError(f"concurrency: expected 1 to 1,024 requests, found {self.concurrency!r}")
        for name in ("timeout", "patience"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e7:
                raise DataError(f"{name}: expected seconds above 0, found {value!r}")
        self._check_variable()

    def _check_variable(self) -> None:
        """A name that is none may be the key itself, so it is not shown."""
        name = self.api_key_variable
        if name is not None and (not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w{0,63}", name)):
            raise DataError(
                "api_key_variable: expected the name of an environment variable, as OPENAI_API_KEY, and not the key"
            )

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


def _split(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise DataError(f"url: expected an address, found {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise DataError(f"url: {error}") from None
    return parts
