"""Whatever JSON a server answers with ends in rows that are sound, or in an error that names it."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from decant.pipeline.errors import ServerError
from decant.pipeline.served.echo import Echo
from decant.pipeline.served.heads import AnswerError, Heads, likeliest, require_sound
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


def prompt_of(tokenizer: Any) -> Prompt:
    tokens = np.array(tokenizer("it was great fun and moving")["input_ids"])
    return Prompt(tokens, np.arange(len(tokens) - 1), tokenizer)


def way(dialect: str, tokenizer: Any) -> Any:
    names = TokenNames(tokenizer, 340)
    return {
        "vllm": Vllm("tiny"),
        "sglang": Sglang(),
        "openai": Echo("tiny", names=names),
        "openai-text": Echo("tiny", as_ids=False, wants_ids=False, spare=20, names=names),
        "llama.cpp": LlamaCpp(),
    }[dialect]


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai", "openai-text", "llama.cpp"])
def test_whatever_is_answered_ends_in_sound_rows_or_an_error(
    dialect: str, network: Any, tokenizer: Any
) -> None:
    prompt = prompt_of(tokenizer)
    believed, said = 0, list[str]()
    with ModelServer(network, dialect, tokenizer) as made:
        connection: Any = _Connection(made)
        server = Server(connection, Model("tiny", {}, None, None, None), way(dialect, tokenizer), 340)
        for _ in range(400 if dialect != "llama.cpp" else 150):
            server.said.model = None
            try:
                heads = server.ask(prompt, 4, "sample 3")
            except ServerError as error:
                said.append(str(error))
                continue
            believed += 1
            rows = heads.rows(340)
            assert rows["ids"].shape == (len(prompt.places), 4)
            assert (np.exp(rows["log_probs"].astype("f8")).sum(axis=1) < 1.01).all()
            assert not np.isnan(rows["stats"]).any()
    assert len(said) > 50
    assert all(one.startswith("http://host: sample 3: ") for one in said)
    assert believed > 20 or dialect == "llama.cpp"


class _Lies(_Connection):
    def __init__(self, server: ModelServer, change: Callable[[Any], object]) -> None:
        super().__init__(server)
        self._chance, self._change = cast("Any", SimpleNamespace(random=lambda: 0.0)), change

    def _changed(self, answer: Any) -> Any:
        self._change(answer)
        return answer


def _cut(answer: Any, count: int, said: int | None) -> None:
    """Leaves out the last tokens, of which one was generated, and says another number of them."""
    for of_each in answer["choices"][0]["logprobs"].values():
        del of_each[-count:]
    answer["usage"]["prompt_tokens"] = said


LIES: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "another count": ("openai", lambda answer: _cut(answer, 1, 99), "it read 99 tokens"),
    "another count of texts": ("openai-text", lambda answer: _cut(answer, 1, 99), "it read 99 tokens"),
    "fewer texts": (
        "openai-text", lambda answer: _cut(answer, 3, None), r"it read \d+ tokens, and the corpus has \d+"),
    "another text": (
        "openai-text", lambda answer: answer["choices"][0]["logprobs"]["tokens"].__setitem__(2, "?!"),
        r"token 2 is .* in the corpus, and the server read '\?!'"),
    "count of SGLang": (
        "sglang", lambda answer: answer["meta_info"].update(prompt_tokens=99), "it read 99 tokens"),
    "cut": ("llama.cpp", lambda answer: answer.update(truncated=True), "it cut the prompt of 1 tokens"),
    "fewer tokens of a place": (
        "vllm", lambda answer: [answer["choices"][0]["prompt_logprobs"][2].popitem() for _ in range(2)],
        r"gives [23] log-probabilities at a place, and 4 are asked for"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_what_one_way_to_ask_alone_can_say_wrong_is_named(lie: str, network: Any, tokenizer: Any) -> None:
    dialect, change, said = LIES[lie]
    with ModelServer(network, dialect, tokenizer) as made:
        connection: Any = _Lies(made, change)
        server = Server(connection, Model("tiny", {}, None, None, None), way(dialect, tokenizer), 340)
        with pytest.raises(ServerError, match=said):
            server.ask(prompt_of(tokenizer), 4, "sample 3")


SOUND = Heads(np.array([[5, 2], [0, 7]]), np.log([[0.5, 0.25], [0.75, 0.125]]), np.log([0.25, 0.0625]))
NEXT = np.array([2, 3])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"log_probs": [[np.nan, -2.0], [-0.3, -2.1]]}, "row 0: a log-probability is NaN"),
        ({"next_log_prob": [np.log(0.25), np.nan]}, "row 1: a log-probability is NaN"),
        ({"next_log_prob": [np.log(0.25), 0.1]}, "row 1: a log-probability is above 0, as of raw logits"),
        ({"ids": [[5, 2], [8, 7]]}, "row 1: it names a token that is none of 8"),
        ({"ids": [[5, 2], [7, 7]]}, "row 1: it names a token twice"),
        ({"log_probs": np.log([[0.75, 0.3], [0.75, 0.125]])}, "row 0: its probabilities sum to more than 1"),
        ({"next_log_prob": np.log([0.2, 0.0625])}, "row 0: it says two things of the token that follows"),
        ({"next_log_prob": np.log([0.25, 0.2])}, "row 1: it leaves out the token that follows, which is likelier"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_of_one_place_is_named(changes: dict[str, Any], said: str) -> None:
    require_sound(SOUND, NEXT, 8)
    with pytest.raises(AnswerError, match=said):
        require_sound(SOUND._replace(**{name: np.array(value) for name, value in changes.items()}), NEXT, 8)


def test_a_token_that_never_follows_may_be_said_to_be_so() -> None:
    heads = Heads(np.array([[0, 1]]), np.array([[0.0, -np.inf]]), np.array([-np.inf]))
    require_sound(heads, np.array([1]), 8)
    assert np.isneginf(heads.rows(8)["stats"][0, 1])
    assert heads.rows(8)["log_probs"].tolist() == [[0.0, -65_504.0]]


def test_the_likeliest_are_those_of_the_lower_id_where_two_are_equal() -> None:
    heads = likeliest([[9, 4, 1, 6], [3, 2]], [[-2.0, -1.0, -2.0, -2.0], [-1.0, -1.0]], [-1.0, -1.0], kept=2)
    assert heads.ids.tolist() == [[4, 1], [2, 3]]
    with pytest.raises(AnswerError, match="names a token by a number below 0"):
        likeliest([[9, -1, 4]], [[-2.0, -1.0, -3.0]], [-1.0], kept=2)
