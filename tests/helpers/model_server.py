"""A server over a real network: it answers as vLLM, SGLang, llama.cpp or OpenAI do, and fails on purpose."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.servers import in_thread

Fault = Callable[["Handler", dict[str, Any]], bool]
"""Is asked before a request is answered; True where it has dealt with the connection itself."""


class ModelServer(ThreadingHTTPServer):
    """Listens on a port of its own. What a test sets is read at each request."""

    daemon_threads = True

    def __init__(self, network: Any, dialect: str, tokenizer: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.network, self.dialect, self.tokenizer = network, dialect, tokenizer
        self.model, self.limit, self.bos, self.key = "tiny", 10**6, None, None
        self.max_length: int | None = 256
        self.fault: Fault = lambda handler, body: False
        self.change: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.asked, self.at_once, self.most_at_once = 0, 0, 0
        self.lock = threading.Lock()
        self._known: dict[tuple[int, tuple[int, ...]], Any] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def log_probs(self, ids: list[int]) -> Any:
        """(L, C) of the token after each."""
        import torch

        with self.lock, torch.inference_mode():
            key = id(self.network), tuple(ids)
            if key not in self._known:
                logits = self.network(input_ids=torch.tensor([ids])).logits[0]
                self._known[key] = logits.double().log_softmax(1)
            return self._known[key]

    def both(self, ids: list[int], count: int) -> tuple[Any, list[list[tuple[int, float]]]]:
        """The same, and the likeliest tokens after each of the tokens, by one network, which a test may exchange."""
        own = self.log_probs(ids)
        values, places = own.topk(count)
        pairs = zip(places.tolist(), values.tolist(), strict=True)
        return own, [list(zip(*pair, strict=True)) for pair in pairs]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asks may have gone."""


@contextlib.contextmanager
def serving(network: Any, dialect: str, tokenizer: Any = None) -> Iterator[ModelServer]:
    """A server that runs until the block is left."""
    with in_thread(ModelServer(network, dialect, tokenizer)) as server:
        yield server


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        if not self._allowed():
            return
        owner = {"llama.cpp": "llamacpp", "openai": "me", "openai-text": "me"}
        entry = {
            "id": self.server.model,
            "object": "model",
            "owned_by": owner.get(self.server.dialect, self.server.dialect),
        }
        if self.server.dialect == "llama.cpp":
            entry["meta"] = {"n_vocab": 340, "n_params": 1234, "n_ctx": self.server.max_length}
        elif self.server.max_length is not None:
            entry["max_model_len"] = self.server.max_length
        answers = {"/v1/models": {"object": "list", "data": [entry]}, "/props": {"total_slots": 2}}
        if self.path not in answers:
            self.send(404, {"detail": "Not Found"})
        else:
            self.send(200, answers[self.path])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            if self._allowed() and not server.fault(self, body):
                status, answer = self._answer(body)
                self.send(status, server.change(answer) if status == 200 else answer)
        finally:
            with server.lock:
                server.at_once -= 1

    def send(self, status: int, answer: Any, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def drop(self, said: bytes = b"") -> None:
        """Ends the connection in the middle of an answer."""
        self.wfile.write(said)
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _allowed(self) -> bool:
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return True
        given = self.headers.get("Authorization", "")
        self.send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        return False

    def _answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        server = self.server
        path = {"vllm": "/v1/completions", "sglang": "/generate", "llama.cpp": "/completion"}
        if self.path != path.get(server.dialect, "/v1/completions"):
            return 404, {"detail": "Not Found"}
        if body.get("model", server.model) != server.model:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        ids = body.get("prompt", body.get("input_ids"))
        if isinstance(ids, str):
            ids = server.tokenizer(ids)["input_ids"]
        elif server.dialect == "openai-text":
            return 422, {"detail": [{"msg": "Input should be a valid string", "input": ids}]}
        if server.bos is not None:
            ids = [server.bos, *ids]
        names = ("prompt_logprobs", "top_logprobs_num", "n_probs", "logprobs")
        count = next((body[name] for name in names if name in body), 0)
        if count > server.limit:
            said = f"Requested prompt logprobs of {count}, which is greater than max allowed: {server.limit}"
            return 400, {"error": {"message": said, "type": "BadRequestError", "code": 400}}
        make = {"vllm": self._vllm, "sglang": self._sglang, "llama.cpp": self._llama_cpp}
        return 200, make.get(server.dialect, self._echo)(body, ids, count)

    def _vllm(self, body: dict[str, Any], ids: list[int], count: int) -> Any:
        if "prompt_logprobs" not in body:
            return {"choices": [{"text": "", "prompt_logprobs": None}]}
        (own, top), rows = self.server.both(ids, count), list[Any]([None])
        for place, row in enumerate(top[:-1]):
            following = ids[place + 1]
            listed = {**{following: own[place, following].item()}, **dict(row)}
            rows.append({str(one): {"logprob": value, "rank": 1} for one, value in listed.items()})
        choice = {"index": 0, "text": "x", "prompt_logprobs": rows, "prompt_token_ids": ids}
        return self._openai(choice, ids)

    def _sglang(self, body: dict[str, Any], ids: list[int], count: int) -> Any:
        own, top = self.server.both(ids, count)
        about = {
            "prompt_tokens": len(ids),
            "weight_version": "default",
            "input_token_logprobs": [
                [None, ids[0], None],
                *([own[n, one].item(), one, None] for n, one in enumerate(ids[1:])),
            ],
            "input_top_logprobs": [None, *([[value, one, None] for one, value in row] for row in top[:-1])],
        }
        return {"text": "x", "meta_info": about}

    def _llama_cpp(self, body: dict[str, Any], ids: list[int], count: int) -> Any:
        drawn = body["logit_bias"][0][0]
        own, top = self.server.both(ids, count)
        place = {
            "id": drawn,
            "logprob": own[-1, drawn].item(),
            "top_logprobs": [{"id": one, "logprob": value} for one, value in top[-1]],
        }
        return {"completion_probabilities": [place], "tokens_evaluated": len(ids), "truncated": False}

    def _echo(self, body: dict[str, Any], ids: list[int], count: int) -> Any:
        own, top = self.server.both(ids, count)
        by_id = body.get("return_tokens_as_token_ids") and self.server.dialect == "openai"

        def name(one: int) -> str:
            return f"token_id:{one}" if by_id else self.server.tokenizer.decode([one])

        about = {
            "tokens": [*map(name, ids), name(5)],
            "token_logprobs": [None, *(own[n, one].item() for n, one in enumerate(ids[1:])), -1.0],
            "top_logprobs": [None, *({name(one): value for one, value in row} for row in top[:-1]), {}],
        }
        return self._openai({"index": 0, "text": "x", "logprobs": about}, ids)

    def _openai(self, choice: dict[str, Any], ids: list[int]) -> Any:
        return {
            "object": "text_completion",
            "model": self.server.model,
            "choices": [choice],
            "usage": {"prompt_tokens": len(ids), "completion_tokens": 1},
        }
