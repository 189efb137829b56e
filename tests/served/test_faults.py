"""Answers that cannot be right are refused by name, what passes is asked again, and a cache has rows of one model."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from decant.cache import CacheWarning, LogitCache, MismatchError
from decant.encodings import Sparse
from decant.language import ServedTeacher, TokenSamples, cache_logits, tokenise
from decant.pipeline.errors import DataError, ModelError, ServerError
from decant.pipeline.language.served_pass import ServedPass
from decant.pipeline.served.connection import Connection
from decant.pipeline.served.server import Model, require_fitting
from tests.helpers import language
from tests.helpers.model_server import Handler, ModelServer, serving
from tests.served.conftest import HEAD

Fill = Callable[..., LogitCache]


@pytest.fixture
def server(network: Any, tokenizer: Any) -> Iterator[ModelServer]:
    with serving(network, "vllm", tokenizer) as found:
        yield found


@pytest.fixture
def fill(server: ModelServer, samples: TokenSamples, tmp_path: Path) -> Fill:
    """Has the server fill a cache."""

    def run(name: str = "c.h5", **settings: Any) -> LogitCache:
        teacher = ServedTeacher(server.url, **{"concurrency": 2, "patience": 20.0, **settings})
        return cache_logits(teacher, samples, tmp_path / name, encoding=HEAD)

    return run


@pytest.fixture(scope="module")
def whole(network: Any, samples: TokenSamples, folder: Path) -> bytes:
    """The file of a pass without faults."""
    with serving(network, "vllm") as server:
        cache = cache_logits(ServedTeacher(server.url), samples, folder / "whole.h5", encoding=HEAD)
    return cache.path.read_bytes()


def test_what_passes_is_asked_again(server: ModelServer, fill: Fill, whole: bytes) -> None:
    happened = []

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        with server.lock:
            happened.append(server.asked)
            number = len(happened)
        match number:
            case 2:
                handler.drop()
            case 4:
                handler.drop(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
            case 6:
                handler.send(429, {"error": {"message": "slowly"}}, Retry_After="0")
            case 8:
                handler.send(503, b"<html>starting</html>")
            case 10:
                handler.send(500, {"error": "once"})
            case 12:
                handler.send(200, b'{"choices": [{"prompt_logpr')
            case 14 | 15 | 16 | 17 | 18 | 19:  # of a gateway, and more than a failed request is asked again
                handler.send(524, b"<html>a timeout occurred</html>", Retry_After="0")
            case 20:
                handler.send(507, {"error": "once"})
            case _:
                return False
        return True

    server.fault = fault
    assert fill().path.read_bytes() == whole
    assert len(happened) > 20


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_what_the_server_does_not_take_is_asked_once(status: int, server: ModelServer, fill: Fill) -> None:
    seen = []

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        if len(body["prompt"]) < 10:
            return False
        seen.append(body)
        handler.send(status, {"object": "error", "message": "not\nof this kind", "code": status})
        return True

    server.fault = fault
    with pytest.raises(ServerError, match=rf"http://127.0.0.1:\d+: answers {status} \(not of this kind\)$"):
        fill()
    assert len(seen) <= 2  # of each connection


@pytest.mark.parametrize("waits_for", ["an answer", "its turn"])
def test_what_other_threads_wait_for_is_ended_where_one_is_refused(
    waits_for: str, server: ModelServer, fill: Fill
) -> None:
    asked, over = list[int](), threading.Event()

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        with server.lock:
            asked.append(len(asked))
            number = len(asked)
        if number == 11:  # of a sample: what the pass begins with is asked for before
            if waits_for == "an answer":
                over.wait(20)
            else:
                handler.send(503, b"", Retry_After="15")
        if number == 12:
            handler.send(400, {"message": "no"})
        return number > 10

    server.fault = fault
    with pytest.raises(ServerError, match="answers 400"):
        fill()
    assert not [one for one in threading.enumerate() if one.name == "ask"]
    over.set()


def test_a_certificate_that_is_not_trusted_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        error = ssl.SSLCertVerificationError(1, "verify failed")
        error.verify_message = "self-signed certificate"  # as the handshake says it
        raise error

    monkeypatch.setattr(http.client.HTTPSConnection, "connect", refuse)
    with pytest.raises(ServerError, match=r"its certificate is not trusted \(self-signed"):
        Connection(ServedTeacher("https://localhost:9", patience=1e6)).get("/v1/models")


def test_where_a_redirect_leads_and_a_wait_beyond_patience_are_said(server: ModelServer, fill: Fill) -> None:
    """A query of an address may hold a key."""

    def elsewhere(handler: Handler, body: dict[str, Any]) -> bool:
        handler.send(308, b"", Location="https://me:planted@host/v1/completions#key=planted")
        return True

    def busy(handler: Handler, body: dict[str, Any]) -> bool:
        handler.send(429, {"error": {"message": "slowly"}}, Retry_After="120")
        return True

    server.fault = elsewhere
    with pytest.raises(
        ServerError, match=r"answers 308, and sends to https://\S*host/v1/completions: give"
    ) as raised:
        fill()
    assert "planted" not in str(raised.value)
    server.fault = busy
    with pytest.raises(
        ServerError, match=r"answers 429 \(slowly\); it says to wait 120 s, and patience is 20 s in all"
    ):
        fill()


def test_a_server_that_asks_for_no_wait_is_not_flooded(server: ModelServer, fill: Fill) -> None:
    """As one whose clock is behind: its date has passed."""
    seen = []

    def busy(handler: Handler, body: dict[str, Any]) -> bool:
        seen.append(body)
        handler.send(503, {"error": "busy"}, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT")
        return True

    server.fault = busy
    with pytest.raises(ServerError, match="answers 503"):
        fill(patience=0.5)
    assert len(seen) < 10


def _rows(change: Callable[[list[Any], dict[str, Any]], None]) -> Callable[[dict[str, Any]], Any]:
    """Changes the rows of an answer of vLLM, from the third."""

    def changed(answer: dict[str, Any]) -> Any:
        choice = answer["choices"][0]
        rows = choice["prompt_logprobs"]
        if len(rows) > 3:
            change(rows, choice)
        return answer

    return changed


def _set(values: dict[str, float]) -> Callable[[dict[str, Any]], Any]:
    return _rows(lambda rows, choice: rows[3].update({one: {"logprob": v} for one, v in values.items()}))


def _all(value: Callable[[float], Any]) -> Callable[[dict[str, Any]], Any]:
    def change(rows: list[Any], choice: dict[str, Any]) -> None:
        for entry in rows[3].values():
            entry["logprob"] = value(entry["logprob"])

    return _rows(change)


def _other_token(rows: list[Any], choice: dict[str, Any]) -> None:
    choice["prompt_token_ids"] = [*choice["prompt_token_ids"][:2], 7, *choice["prompt_token_ids"][3:]]


def _without_next(rows: list[Any], choice: dict[str, Any]) -> None:
    del rows[3][str(choice["prompt_token_ids"][3])]


LIES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other token": (_rows(_other_token), r"sample \d+: token 2 is '.*' \(id \d+\) in the corpus, and the server read"),
    "count": (_rows(lambda rows, choice: rows.pop()), r"prompt_logprobs: expected one for each of \d+ tokens, found"),
    "usage": (lambda answer: {**answer, "usage": {"prompt_tokens": 4321}}, "it read 4321 tokens, and the corpus has"),
    "NaN": (_all(lambda value: float("nan")), "a log-probability is NaN"),
    "text": (_all(str), "expected {id: {logprob: …}}"),
    "logits": (_all(lambda value: -value), "a log-probability is above 0, as of raw logits"),
    "sum": (_all(lambda value: -0.5), "its probabilities sum to more than 1"),
    "id": (_set({"340": -0.9}), "it names a token that is none of 340: its tokenizer is another"),
    "next": (_rows(_without_next), "the next token is \\d+, and its log-probability is not among those"),
    "model": (lambda answer: {**answer, "model": "tiny" if len(answer["choices"][0]["prompt_logprobs"]) < 9 else "b"},
              "it answers as the model 'b', and answered as 'tiny' before"),
    "list": (lambda answer: [answer], "has no choices in its answer"),
    "nothing": (lambda answer: {**answer, "choices": [{"text": "x"}]}, "has no prompt_logprobs in its answer"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_cannot_be_right_is_refused_by_name(
    lie: str, server: ModelServer, fill: Fill, tmp_path: Path
) -> None:
    server.change, said = LIES[lie]
    with pytest.raises(ServerError, match=said):
        fill()
    assert not (tmp_path / "c.h5").exists()
    assert not [one for one in threading.enumerate() if one.name == "ask"]


@pytest.mark.parametrize("dialect", ["sglang", "openai"])
def test_what_contradicts_itself_is_not_believed(
    dialect: str, network: Any, tokenizer: Any, samples: TokenSamples, tmp_path: Path
) -> None:
    def change(answer: dict[str, Any]) -> Any:
        if dialect == "sglang":
            answer["meta_info"]["input_token_logprobs"][1][0] = -0.001
        else:
            answer["choices"][0]["logprobs"]["token_logprobs"][1] = -0.001
        return answer

    with serving(network, dialect, tokenizer) as server:
        server.change = change
        with pytest.raises(
            ServerError, match=r"leaves out the token that follows, which is likelier|says two things"
        ):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai", "llama.cpp"])
def test_a_token_that_the_server_adds_is_found(
    dialect: str, network: Any, tokenizer: Any, samples: TokenSamples, tmp_path: Path
) -> None:
    with serving(network, dialect, tokenizer) as server:
        server.bos = 1
        said = (
            "it read 2 tokens where 1 were sent"
            if dialect == "llama.cpp"
            else "1 token less at the beginning"
        )
        with pytest.raises(ServerError, match=said):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)


def test_the_most_that_a_server_gives_is_named(server: ModelServer, fill: Fill) -> None:
    server.limit = 5
    with pytest.raises(
        ServerError,
        match=r"does not give the 8 likeliest tokens of a place, and gives 5 \(answers 400 \(Requested prompt logprobs "
        r"of 8, which is greater than max allowed: 5\)\); start it .*--max-logprobs 8.*Sparse\(head=5\)",
    ):
        fill()


def _after_writes(monkeypatch: pytest.MonkeyPatch, count: int, happens: Callable[[], object]) -> None:
    """Rows are written 3 samples at a time; after so many writes something happens."""
    write, writes = ServedPass._write, []

    def written(*given: Any) -> None:
        write(*given)
        writes.append(given)
        if len(writes) == count:
            happens()

    monkeypatch.setattr("decant.pipeline.language.served_pass._AT_ONCE", 3)
    monkeypatch.setattr(ServedPass, "_write", written)


def test_no_row_of_another_model_gets_into_the_file(
    server: ModelServer, network: Any, fill: Fill, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is started anew, by the same name, in the middle of a pass, and right again afterwards."""
    other = language.llama(340, seed=5)
    with monkeypatch.context() as patch:
        _after_writes(patch, 1, lambda: setattr(server, "network", other))
        with pytest.raises(
            ServerError, match="nats apart on average; it has another model, or other weights"
        ):
            fill()
    with pytest.raises(MismatchError, match=r"than when .*c\.h5.* was begun"):
        fill()
    server.network = network
    assert fill().path.read_bytes() == whole
    server.network = other
    with pytest.raises(MismatchError, match=r"than when .* was made: those of the likeliest tokens"):
        fill()


def test_a_killed_pass_goes_on(
    server: ModelServer, fill: Fill, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if not child:
        try:
            _after_writes(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
            fill()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    server.asked = 0
    assert fill().path.read_bytes() == whole
    assert server.asked < 20  # a whole pass of 12 samples asks 23 times


def test_a_key_is_never_shown_or_stored(
    server: ModelServer,
    fill: Fill,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    secret = "planted-0123456789-secret"
    server.key = secret
    monkeypatch.setenv("TEACHER_KEY", secret + "-not")
    with pytest.raises(ServerError, match=r"answers 401 .*Incorrect API key provided") as raised:
        fill(api_key_variable="TEACHER_KEY")
    assert "planted" not in str(raised.value)
    monkeypatch.setenv("TEACHER_KEY", secret)
    cache = fill(api_key_variable="TEACHER_KEY")
    assert secret not in repr(ServedTeacher(server.url, api_key_variable="TEACHER_KEY"))
    assert secret not in "".join(capfd.readouterr())
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()
    assert server.url not in json.dumps(cache.manifest.identity)
    with pytest.raises(ServerError, match="answers 401"):
        fill("d.h5")
    for url, settings in (
        ("http://me:planted-pass@host/v1", {}),
        ("http://host/v1?key=planted-key", {}),
        (server.url, {"api_key_variable": "sk-planted-key"}),
        (server.url, {"api_key_variable": "PLANTED_BUT_NOT_SET"}),
    ):
        with pytest.raises(DataError) as refused:
            ServedTeacher(url, **settings).key()
        assert "planted" not in str(refused.value).lower()


def test_a_whole_cache_is_found_without_the_server_and_other_ones_are_refused(
    samples: TokenSamples, network: Any, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(network, "vllm") as server:
        teacher = ServedTeacher(server.url, patience=0.5)
        cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=HEAD)
    found = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=HEAD)
    assert found.manifest.key == cache.manifest.key
    assert "cannot be reached (ConnectionRefusedError: Connection refused)" in capsys.readouterr().err
    with pytest.raises(MismatchError, match=r"encoding.head: expected 5, found 8"):
        cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Sparse(head=5))
    with pytest.raises(MismatchError, match=r"teacher.network.name: expected 'b', found 'tiny'"):
        cache_logits(ServedTeacher(server.url, model="b"), samples, tmp_path / "c.h5", encoding=HEAD)
    began = time.monotonic()
    with pytest.raises(ServerError, match=r"cannot be reached \(ConnectionRefusedError: .*\), \d times in"):
        cache_logits(teacher, samples, tmp_path / "d.h5", encoding=HEAD)
    assert time.monotonic() - began < 60
    with serving(network, "vllm", tokenizer) as server:
        server.model = "b"
        with pytest.raises(MismatchError, match=r"teacher.network.name: expected 'b', found 'tiny'"):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)


@pytest.mark.parametrize(
    "kept", [b"", b"Connection: close\r\n"], ids=["a connection that is kept", "one that is not"]
)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(
    kept: bytes, server: ModelServer, fill: Fill
) -> None:
    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + kept + b"Content-Length: 900\r\n\r\n")
        for _ in range(30):
            handler.wfile.write(b"{")
            time.sleep(0.1)
        return True

    server.fault = fault
    with pytest.raises(ServerError, match=r"did not answer within 0.5 s"):
        fill(timeout=0.5, patience=0.2)


@pytest.mark.parametrize("when", ["before it connects", "before it asks"])
def test_a_connection_that_is_ended_meanwhile_leaves_no_socket(
    when: str, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a pass that ends in another of its threads."""
    ended, sockets = threading.Event(), []
    connection = Connection(ServedTeacher(server.url, patience=5.0), left=ended.is_set)
    connect = http.client.HTTPConnection.connect

    def end() -> None:
        connection.close()
        ended.set()

    def connecting(self: http.client.HTTPConnection) -> None:
        if when == "before it connects":
            end()
        connect(self)
        sockets.append(self.sock)

    def asking(self: http.client.HTTPConnection, *arguments: Any) -> None:
        end()
        ask(self, *arguments)

    ask = http.client.HTTPConnection.request
    monkeypatch.setattr(http.client.HTTPConnection, "connect", connecting)
    if when == "before it asks":
        monkeypatch.setattr(http.client.HTTPConnection, "request", asking)
    with pytest.raises(ServerError, match="nobody waits"):
        connection.get("/v1/models")
    assert [each.fileno() for each in sockets] == [-1]


def test_what_cannot_be_is_refused_before_the_pass(
    server: ModelServer, samples: TokenSamples, tmp_path: Path
) -> None:
    teacher = ServedTeacher(server.url)
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: ServedTeacher("localhost:8000"), DataError, "url: expected http:// or https://"),
        (lambda: ServedTeacher("http://a:b/"), DataError, "url: "),
        (lambda: ServedTeacher(server.url, dialect="tgi"), DataError, "dialect: expected one of vllm"),  # type: ignore[arg-type]
        (lambda: ServedTeacher(server.url, concurrency=0), DataError, "concurrency: expected 1 to 1,024"),
        (lambda: ServedTeacher(server.url, timeout=0), DataError, "timeout: expected seconds above 0"),
        (lambda: cache_logits(teacher, samples, tmp_path / "c", encoding="hidden"), DataError,
         r"no others, so it must be Sparse\(head=k\)"),
        (lambda: cache_logits(teacher, samples, tmp_path / "c", encoding=Sparse(4, draws=4)), DataError,
         "the likeliest tokens are known and no others"),
        (lambda: cache_logits(teacher, samples, tmp_path / "c", encoding=Sparse(4, (1.0, 2.0))), DataError,
         "a server tells probabilities at T = 1"),
        (lambda: cache_logits(ServedTeacher(server.url, model="b"), samples, tmp_path / "c"), ServerError,
         "serves no model 'b'; there are tiny"),
    ]  # fmt: skip
    for run, kind, said in cases:
        with pytest.raises(kind, match=said):
            run()
    server.max_length = 10
    with pytest.raises(ModelError, match=r"takes 10 tokens at most.* set max_length = 9 of TokenSamples"):
        cache_logits(teacher, samples, tmp_path / "c")
    assert server.asked == 0
    assert not (tmp_path / "c").exists()


def test_another_tokenizer_is_found_by_the_tokens(
    server: ModelServer, fill: Fill, samples: TokenSamples, tmp_path: Path
) -> None:
    """A server that makes tokens of a text by itself, as one behind a proxy that sends texts."""
    server.dialect, server.tokenizer = "openai-text", language.tokenizer(seed=3)
    corpus = tokenise(language.sentences(12), language.tokenizer(), tmp_path / "t")
    with pytest.raises(ServerError, match=r"in the corpus, and the server read|and the corpus has"):
        cache_logits(
            ServedTeacher(server.url), TokenSamples(corpus, max_length=64), tmp_path / "c", encoding=Sparse(1)
        )


def test_a_served_model_whose_outputs_are_about_the_token_itself_is_said(
    samples: TokenSamples, tmp_path: Path
) -> None:
    """As where a server tells probabilities of another place than it should."""
    table = language.bigram(samples, 340, shift=0)
    with torch.no_grad():
        table.table.weight += torch.rand(340, 340, generator=torch.Generator().manual_seed(0))  # no two alike
    with (
        serving(lambda input_ids: SimpleNamespace(logits=table(input_ids)), "vllm") as server,
        pytest.warns(CacheWarning, match="outputs shifted by one"),
    ):
        cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)


def test_an_error_of_the_server_is_asked_again_five_times_and_as_late_as_it_says(
    server: ModelServer, fill: Fill, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decant.pipeline.served.connection._FIRST_WAIT", 0.001)
    for status, content, said in (
        (500, {"error": "always"}, r"answers 500 \(always\)"),
        (200, b"[" * 100_000, "answers with what is no JSON"),
    ):
        server.asked = 0
        server.fault = partial(_always, status, content)
        with pytest.raises(ServerError, match=rf"{said}, 5 times$"):
            fill()
        assert server.asked == 5
    asked: list[float] = []

    def busy_once(handler: Handler, body: dict[str, Any]) -> bool:
        """And an answer that is cut off is no error, however often."""
        asked.append(time.monotonic())
        if len(asked) == 1:
            handler.send(429, {"error": "later"}, Retry_After="1")
        elif len(asked) <= 6:
            handler.drop(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
        return len(asked) <= 6

    server.fault = busy_once
    assert fill().path.read_bytes() == whole
    assert asked[1] - asked[0] >= 1


def _always(status: int, content: Any, handler: Handler, body: dict[str, Any]) -> bool:
    handler.send(status, content)
    return True


def test_waits_grow_to_half_a_minute_and_are_those_that_are_asked_for_up_to_ten_minutes(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()

    def busy(handler: Handler, body: dict[str, Any]) -> bool:
        if len(waits) < 9:
            handler.send(503, b"")
        elif len(waits) == 9:
            handler.send(503, b"", Retry_After="100000")
        else:
            handler.send(400, b"")
        return True

    server.fault = busy
    monkeypatch.setattr(Connection, "_sleep", lambda _, seconds: waits.append(seconds))
    connection = Connection(ServedTeacher(server.url, patience=1e6))
    with pytest.raises(ServerError, match="answers 400"):
        connection.post("/v1/completions", {})
    connection.close()
    most = [*(0.25 * 2**tries for tries in range(1, 7)), 30.0, 30.0, 30.0]
    assert all(each / 2 <= wait <= each for each, wait in zip(most, waits[:9], strict=True)), waits
    assert waits[9:] == [600.0]


def test_a_llama_cpp_that_takes_no_bias_is_refused(
    network: Any, samples: TokenSamples, tmp_path: Path
) -> None:
    """Its log-probability would be of the token that it drew, and not of the one that follows."""
    with serving(network, "llama.cpp") as server:
        server.change = lambda answer: {
            **answer,
            "completion_probabilities": [{**answer["completion_probabilities"][0], "id": 5}],
        }
        with pytest.raises(
            ServerError, match=r"it drew the token 5, where .* was forced: it takes no logit_bias"
        ):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)


def test_a_model_that_reads_or_knows_one_token_too_few_is_refused() -> None:
    def fits(max_length: int, known: int) -> None:
        require_fitting(Model("m", {}, max_length, known, None), "http://h", longest=20, num_ids=340)

    fits(21, 340)
    with pytest.raises(
        ModelError, match=r"set max_length = 19 of TokenSamples \(of a recipe data\.max_length\)"
    ):
        fits(20, 340)  # it generates one token more
    with pytest.raises(ModelError, match=r"knows 339 tokens, and the tokenizer of the corpus 340"):
        fits(21, 339)
