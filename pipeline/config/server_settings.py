"""The table `[teacher.server]` of a recipe: a teacher behind a server. Imports nothing heavy."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from decant.cache.io.redaction import redacted
from decant.pipeline.config.sections import Section

DialectName: TypeAlias = Literal["vllm", "sglang", "llama.cpp", "openai"]
"""The ways in which servers are asked for the log-probabilities of a prompt's tokens."""
SERVED = "served"
"""The name of the network of a teacher behind a server."""
MOST_REQUESTS = 1024
MOST_SECONDS = 1e7
DECISIVE = frozenset({"model"})
"""Of these settings, what decides the teacher's answers. Where it is asked, and how patiently, does not."""

Seconds = Annotated[float, Field(gt=0, lt=MOST_SECONDS)]


class ServerSettings(Section):
    """`[teacher.server]`: a language model that a server has, in place of `network`."""

    url: str
    """Address of the server, as "http://localhost:8000/v1"; the /v1 may be left out. It is no part of the key."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """By the name that the server gives it; None takes the only one that it serves."""
    dialect: DialectName | None = None
    """How it is asked; None finds out by a small request."""
    api_key_variable: str | None = None
    """The name of the environment variable that holds the key which the server wants. The key itself is never in a
    recipe, a run folder or a message.
    """
    concurrency: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] = 16
    """How many requests are under way at a time, beside one that compares."""
    timeout: Seconds = 600.0
    """Seconds that one answer may take."""
    patience: Seconds = 600.0
    """Seconds for which a request is repeated while the server cannot be reached, or says that it is busy."""

    @model_validator(mode="before")
    @classmethod
    def _shows_no_key(cls, content: Any) -> Any:
        """What is no text may hold the key too, and is not to be shown."""
        problem = problem_of_variable(content.get("api_key_variable")) if isinstance(content, dict) else None
        if problem is not None:
            raise ValueError(f"api_key_variable: {problem}")
        return content

    @model_validator(mode="after")
    def _names_a_server(self) -> ServerSettings:
        problem = problem_of_url(self.url)
        if problem is not None:
            raise ValueError(f"url: {problem}")
        return self


def problem_of_url(url: object) -> str | None:
    """What is wrong with the address of a server; None where nothing is.

    >>> problem_of_url("http://localhost:8000/v1")
    >>> problem_of_url("localhost:8000")
    "expected http:// or https:// and a host, found 'localhost:8000'"
    """
    if not isinstance(url, str):
        return f"expected an address, found {type(url).__name__}"
    try:
        parts: SplitResult = urlsplit(url)
        _ = parts.port
    except ValueError:  # its words have a part of the address in them, which may be one of a password
        return "expected http:// or https://, a host, and perhaps a port, which is a number up to 65535"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        found = "" if "@" in url else f", found {redacted(url)!r}"
        return f"expected http:// or https:// and a host{found}"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return (
            "expected an address without a user, a password or a query, as these would be written into logs; "
            "name the environment variable that holds the key: api_key_variable"
        )
    return None


def problem_of_variable(name: object) -> str | None:
    """What is wrong with the name of an environment variable; None where nothing is. A name that is none may be the
    key itself, so it is not shown.

    >>> problem_of_variable("sk-12")
    'expected the name of an environment variable, as OPENAI_API_KEY, and not the key'
    """
    if name is None or (isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w{0,63}", name)):
        return None
    return "expected the name of an environment variable, as OPENAI_API_KEY, and not the key"
