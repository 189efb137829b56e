"""A server that was found, knows the model, and answers as it must."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from decant.pipeline.config.server_settings import DialectName
from decant.pipeline.errors import ModelError, ServerError
from decant.pipeline.served.connection import Connection, RefusedError, UnreachableError
from decant.pipeline.served.dialect import Dialect, Said
from decant.pipeline.served.echo import Echo
from decant.pipeline.served.heads import (
    AnswerError,
    FewerError,
    Heads,
    MissingError,
    UnnamedError,
    require_sound,
)
from decant.pipeline.served.llama_cpp import LlamaCpp
from decant.pipeline.served.prompt import Prompt
from decant.pipeline.served.sglang import Sglang
from decant.pipeline.served.teacher import ServedTeacher
from decant.pipeline.served.token_names import TokenNames
from decant.pipeline.served.vllm import Vllm

_OWNERS: dict[str, DialectName] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}
_FEWER = (64, 32, 20, 16, 10, 5, 1)
_SPARE = 8
_LIMITS = {400, 422}
_REFUSALS = {400, 404, 405, 413, 415, 422, 501}  # of a way to ask, perhaps, and not of all


@dataclass(frozen=True)
class Model:
    """What a server says of the model that it serves."""

    name: str
    identity: dict[str, Any]
    """What tells it from others, for a manifest."""
    max_length: int | None
    """Tokens that it reads at most, one that it generates among them; None where that is not said."""
    num_outputs: int | None
    """Tokens that it knows; None where that is not said."""
    dialect: DialectName | None
    """As far as the server says what it is."""


@dataclass
class Server:
    """Asks with one connection, of one thread. A `Prompt` is answered by `Heads` that were checked."""

    connection: Connection
    model: Model
    dialect: Dialect
    num_outputs: int
    said: Said = field(default_factory=Said)
    slots: int | None = None
    """Requests that it works at; more would only drive out what it remembers of the others."""

    def ask(self, prompt: Prompt, kept: int, subject: str) -> Heads:
        """Raises ServerError, which names the subject, where the answer is not believed."""
        try:
            heads = self.dialect.ask(self.connection, prompt, kept, self.said)
            require_sound(heads, prompt.next_ids, self.num_outputs)
        except AnswerError as error:
            raise ServerError(f"{self.connection.url}: {subject}: {self.connection.words(error)}") from None
        return heads


def describe(connection: Connection, wanted: str | None) -> Model:
    """The model by its name, or the only one. Raises ServerError where there is none, or several.

    A server without a list of models is believed to have the one that is wanted, until it is asked.
    """
    try:
        content = connection.get("/v1/models")
    except RefusedError as error:
        if error.status != 404 or wanted is None:
            raise
        return Model(wanted, {"network": {"name": wanted}, "served": {}}, None, None, None)
    found = content.get("data") if isinstance(content, dict) else None
    models = [one for one in found or () if isinstance(one, dict) and isinstance(one.get("id"), str)]
    names = sorted(one["id"] for one in models)
    shown = connection.words(", ".join(names[:20])) or "none"
    if wanted is None and len(models) != 1:
        raise ServerError(
            f"{connection.url}: serves {len(models)} models, say which: model=… (of a recipe teacher.server.model); "
            f"there are {shown}"
        )
    chosen = [one for one in models if wanted in (None, one["id"])]
    if not chosen:
        raise ServerError(f"{connection.url}: serves no model {wanted!r}; there are {shown}")
    content, meta = chosen[0], chosen[0].get("meta")
    meta = meta if isinstance(meta, dict) else {}
    name, root = content["id"], content.get("root")
    sizes = {
        key: meta[key] for key in ("n_vocab", "n_embd", "n_params", "size") if type(meta.get(key)) is int
    }
    served = {**({"root": root} if isinstance(root, str) and root != name else {}), **sizes}
    return Model(
        name,
        {"network": {"name": name}, "served": served},
        _whole(content.get("max_model_len")) or _whole(meta.get("n_ctx")),
        _whole(meta.get("n_vocab")),
        _OWNERS.get(str(content.get("owned_by"))),
    )


def require_fitting(model: Model, url: str, longest: int, num_ids: int) -> None:
    """Raises ModelError where the model reads fewer tokens than a sample has, or knows fewer."""
    if model.max_length is not None and longest + 1 > model.max_length:
        raise ModelError(
            f"{url}: takes {model.max_length:,} tokens at most, one that it generates among them, and a sample has "
            f"{longest:,}; set max_length = {model.max_length - 1} of TokenSamples (of a recipe data.max_length), "
            "or start it with a longer context"
        )
    if model.num_outputs is not None and model.num_outputs < num_ids:
        raise ModelError(
            f"{url}: its model knows {model.num_outputs:,} tokens, and the tokenizer of the corpus {num_ids:,}"
        )


def connect(
    teacher: ServedTeacher, connection: Connection, model: Model, prompt: Prompt, kept: int, num_outputs: int
) -> Server:
    """Finds out how the server is asked, by a prompt of a few tokens. Raises ServerError where it gives no
    log-probabilities of a prompt, or not `kept` of them at each place; names how many it gives.
    """
    forced = teacher.dialect or model.dialect
    refusals: list[str] = []
    limited: ServerError | None = None
    for dialect in _candidates(forced, model.name, prompt, num_outputs):
        server = Server(connection, model, dialect, num_outputs)
        try:
            dialect.ask(connection, prompt, kept, server.said)
        except (FewerError, RefusedError) as error:
            if isinstance(error, RefusedError) and error.status not in _REFUSALS:
                raise
            if isinstance(error, FewerError) or error.status in _LIMITS:
                limited = limited or _limit(server, prompt, kept, error)
            refusals.append(f"{dialect.name}: {_bare(connection, error)}")
            continue
        except UnnamedError:
            return _with_spare(server, prompt, kept)
        except MissingError as error:
            refusals.append(f"{dialect.name}: {connection.words(error)}")
            continue
        except AnswerError:
            pass  # `ask` says it with its subject
        server.slots = _slots(server)
        return _with_spare(server, prompt, kept)
    if limited is not None:
        raise limited
    tried = "; ".join(dict.fromkeys(refusals))
    raise ServerError(f"{connection.url}: gives no log-probabilities of a prompt's tokens; asked as {tried}")


def _candidates(name: DialectName | None, model: str, prompt: Prompt, num_outputs: int) -> Iterator[Dialect]:
    """Ways to ask, the likeliest first."""
    if name in (None, "vllm"):
        yield Vllm(model)
    if name in (None, "sglang"):
        yield Sglang()
    if name in (None, "openai"):
        names = None if prompt.tokenizer is None else TokenNames(prompt.tokenizer, num_outputs)
        yield Echo(model, names=names)
        yield Echo(model, wants_ids=False, names=names)
        if names is not None:
            yield Echo(model, as_ids=False, wants_ids=False, names=names)
    if name in (None, "llama.cpp"):
        yield LlamaCpp()


def _with_spare(server: Server, prompt: Prompt, kept: int) -> Server:
    """Of a server that names tokens by texts some more are asked for, if it gives more. Raises ServerError."""
    if isinstance(server.dialect, Echo) and server.said.by_text:
        more = dataclasses.replace(server.dialect, spare=_SPARE)
        try:
            more.ask(server.connection, prompt, kept, server.said)
        except (ServerError, AnswerError):
            more = server.dialect
        server.dialect = more
    server.ask(prompt, kept, "the first tokens")
    return server


def _slots(server: Server) -> int | None:
    """Of llama.cpp, where each place is a request of its own that goes on from the one before."""
    if not isinstance(server.dialect, LlamaCpp):
        return None
    try:
        props = server.connection.get("/props")
    except RefusedError:  # it need not tell
        return None
    return _whole(props.get("total_slots")) if isinstance(props, dict) else None


def _limit(server: Server, prompt: Prompt, kept: int, error: Exception) -> ServerError | None:
    """What to say of a server that gives log-probabilities of a prompt, but fewer; None where it gives none."""
    for fewer in _FEWER:
        if fewer < kept:
            try:
                server.dialect.ask(server.connection, prompt, fewer, server.said)
            except UnreachableError:
                raise
            except (ServerError, AnswerError):
                continue
            said = _bare(server.connection, error)
            return ServerError(
                f"{server.connection.url}: does not give the {kept} likeliest tokens of a place, and gives {fewer} "
                f"({said}); start it with a larger limit (vLLM: --max-logprobs {kept}), or take a smaller head: "
                f"encoding=Sparse(head={fewer}) (of a recipe cache.encoding.head)"
            )
    return None


def _bare(connection: Connection, error: Exception) -> str:
    """The message of an error without the address, in words that can be shown."""
    return connection.words(str(error).removeprefix(f"{connection.url}: "))


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
