"""Whatever JSON a server answers with ends in rows that are sound, or in an error that names it."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest

from decant.pipeline.errors import ServerError
from decant.pipeline.served.echo import Echo
from decant.pipeline.served.llama_cpp import LlamaCpp
from decant.pipeline.served.prompt import Prompt
from decant.pipeline.served.server import Model, Server
from decant.pipeline.served.sglang import Sglang
from decant.pipeline.served.token_names import TokenNames
from decant.pipeline.served.vllm import Vllm
from tests.helpers.model_server import Handler, ModelServer

JUNK = (
    None,
    True,
    -1,
    0,
    7,
    10**400,
    0.5,
    float("nan"),
    float("-inf"),
    "",
    "7",
    "token_id:",
    [],
    [None],
    {},
    {"7": 1},
)


class _Connection:
    """Gives what a server would answer, changed somewhere."""

    url = "http://host"

    def __init__(self, server: ModelServer) -> None:
        self._handler = Handler.__new__(Handler)
        self._handler.server, self._chance = server, random.Random(0)
        self._known: dict[str, Any] = {}

    def post(self, path: str, body: dict[str, Any]) -> Any:
        key = repr(body["prompt"] if "prompt" in body else body["input_ids"])
        if key not in self._known:
            self._handler.path = path
            status, answer = self._handler._answer(body)
            assert status == 200
            self._known[key] = answer
        answer = copy.deepcopy(self._known[key])
        return self._changed(answer) if self._chance.random() < 0.9 else answer

    def words(self, text: object) -> str:
        return str(text)

    def _changed(self, answer: Any) -> Any:
        """One value on a way down from the top is replaced, left out or doubled."""
        inner, way = answer, list[tuple[Any, Any]]()
        while isinstance(inner, dict | list) and inner:
            place = self._chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
            way.append((inner, place))
            inner = inner[place]
        holder, place = self._chance.choice(way)
        if self._chance.random() < 0.2:
            del holder[place]
        elif isinstance(holder, list) and self._chance.random() < 0.2:
            holder.insert(place, holder[place])
        else:
            holder[place] = self._chance.choice(JUNK)
        return answer


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai", "openai-text", "llama.cpp"])
def test_whatever_is_answered_ends_in_sound_rows_or_an_error(
    dialect: str, network: Any, tokenizer: Any
) -> None:
    tokens = np.array(tokenizer("it was great fun and moving")["input_ids"])
    prompt = Prompt(tokens, np.arange(len(tokens) - 1), tokenizer)
    names = TokenNames(tokenizer, 340)
    ways: dict[str, Any] = {
        "vllm": Vllm("tiny"),
        "sglang": Sglang(),
        "openai": Echo("tiny", names=names),
        "openai-text": Echo("tiny", as_ids=False, wants_ids=False, spare=20, names=names),
        "llama.cpp": LlamaCpp(),
    }
    believed, said = 0, list[str]()
    with ModelServer(network, dialect, tokenizer) as made:
        connection: Any = _Connection(made)
        server = Server(connection, Model("tiny", {}, None, None, None), ways[dialect], 340)
        for _ in range(400 if dialect != "llama.cpp" else 150):
            server.said.model = None
            try:
                heads = server.ask(prompt, 4, "sample 3")
            except ServerError as error:
                said.append(str(error))
                continue
            believed += 1
            rows = heads.rows(340)
            assert rows["ids"].shape == (len(tokens) - 1, 4)
            assert (np.exp(rows["log_probs"].astype("f8")).sum(axis=1) < 1.01).all()
            assert not np.isnan(rows["stats"]).any()
    assert len(said) > 50
    assert all(one.startswith("http://host: sample 3: ") for one in said)
    assert believed > 20 or dialect == "llama.cpp"
