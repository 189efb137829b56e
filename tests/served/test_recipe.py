"""A recipe whose teacher is behind a server, by the real commands: what they make, find, say and refuse."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import LogitCache
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.language.served_teacher import teacher_digest
from tests.helpers import language
from tests.helpers.commands import decant_at_once, decant_here, succeed
from tests.helpers.forked_ranks import run_forked
from tests.helpers.model_server import Handler, ModelServer, serving

RECIPE = """
[data]
name = "tokens"
root = "texts.jsonl"
tokenizer = "tokenizer"
max_length = 64
test_share = 0.2
[teacher]
at_chance = "accept"
[teacher.server]
url = "http://127.0.0.1:{port}/v1"
model = "tiny"
concurrency = 2
patience = 20.0
[cache.encoding]
kind = "sparse"
head = 8
[student]
network = {{ name = "llama", hidden_size = 16, intermediate_size = 32, num_hidden_layers = 1, num_attention_heads = 2 }}
epochs = 1
tokens_per_batch = 512
"""
WORDS = ("--recipe", "r.toml")
SECRET = "planted-b7e1-key"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    made = tmp_path_factory.mktemp("served-recipe")
    tokenizer.save_pretrained(made / "tokenizer")
    rows = [json.dumps({"text": text}) for text in language.sentences(60)]
    (made / "texts.jsonl").write_text("\n".join(rows))
    return made


@pytest.fixture
def server(folder: Path, network: Any) -> Iterator[ModelServer]:
    """On another port in each test; the recipe names it."""
    with serving(network, "vllm") as found:
        (folder / "r.toml").write_text(RECIPE.format(port=found.server_port))
        yield found


@pytest.fixture(scope="module")
def made(folder: Path, network: Any) -> Path:
    """With the caches and the students of a server that is gone."""
    with serving(network, "vllm") as server:
        (folder / "r.toml").write_text(RECIPE.format(port=server.server_port))
        said = succeed(decant_here("teacher", *WORDS, cwd=folder))
        assert f"the teacher is tiny behind {server.url}/v1: there is nothing to train" in said
        assert "next: decant cache-logits" in said
        early = decant_here("student", *WORDS, cwd=folder)
        assert (early.returncode, "was not asked yet" in early.stderr) == (1, True), early.stderr
        dry = succeed(decant_here("cache-logits", *WORDS, "--dry-run", cwd=folder))
        assert dry.count("would make") == 2
        assert not list((folder / "runs/r").glob("teacher-*"))
        filled = decant_here("cache-logits", *WORDS, cwd=folder)
        assert "the 8 likeliest tokens of a place leave" in filled.stderr, filled.stderr
        succeed(filled)
    for command in ("student", "evaluate", "report"):
        succeed(decant_here(command, *WORDS, cwd=folder))
    return folder


def caches(folder: Path, store: str = "caches") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / store).glob("*.h5")}


def test_a_cache_holds_what_the_served_model_says_and_not_where_it_is(made: Path, network: Any) -> None:
    import torch

    assert len(caches(made)) == 2
    for path in (made / "caches").glob("*.h5"):
        cache = LogitCache.open(path)
        identity = cache.manifest.identity
        assert identity["teacher"] == {"network": {"name": "tiny"}, "served": {}, "outputs": 340}
        assert "127.0.0.1" not in json.dumps({**identity, **cache.manifest.info})
        rows, (tokens, _) = cache.rows([3], 0), cache.tokens([3])
        with torch.inference_mode():
            logits = network(input_ids=torch.from_numpy(tokens)[None]).logits[0, :-1]
        values, ids = logits.double().log_softmax(1).topk(8)
        assert np.array_equal(rows.ids, ids.numpy())
        np.testing.assert_allclose(rows.log_probs, values.numpy(), atol=5e-3)


def test_students_are_compared_with_what_the_server_said(made: Path) -> None:
    results = [
        json.loads(path.read_text()) for path in (made / "runs/r").glob("student-*/seed-0/result.json")
    ]
    distilled = next(one for one in results if one["kind"] == "distilled")
    assert {"kl", "agreement"} <= distilled["metrics"].keys()
    assert distilled["teacher"] is not None, "students of two servers' models are told apart"
    table = json.loads(succeed(decant_here("evaluate", *WORDS, "--json", cwd=made)))
    assert all("kl" in one["metrics"] for one in table), "labels-only ones too"
    page = (made / "runs/r/report.html").read_text()
    assert "Next tokens, side by side" in page
    assert "there is no cache of the test part" not in page
    out = succeed(decant_here("status", *WORDS, cwd=made))
    assert "nothing to train" in out
    assert "next: decant report" in out


def test_a_cache_is_found_at_another_address_and_without_the_server(made: Path, server: ModelServer) -> None:
    before = caches(made)
    assert succeed(decant_here("cache-logits", *WORDS, cwd=made)).count("nothing to do") == 2
    assert 0 < server.asked < 20, "it is compared with what the server says of a few tokens"
    agreed = succeed(decant_here("cache", "verify", "--against-teacher", "40", *WORDS, cwd=made))
    assert "rows run again" in agreed
    server.shutdown()
    server.server_close()
    began = time.monotonic()
    alone = decant_here("cache-logits", *WORDS, cwd=made)
    assert succeed(alone).count("nothing to do") == 2
    assert time.monotonic() - began < 20, "a server that is not needed is waited for, 20 s for each cache"
    assert "is whole, and taken without asking" in alone.stderr
    assert caches(made) == before


def test_another_model_under_the_same_name_is_refused(made: Path, server: ModelServer) -> None:
    server.network = language.llama(340, seed=5)
    refused = decant_here("cache-logits", *WORDS, cwd=made)
    assert refused.returncode == 1
    assert "gives other probabilities than when" in refused.stderr
    checked = decant_here("cache", "verify", "--against-teacher", "40", *WORDS, cwd=made)
    assert (checked.returncode, "does not hold what this teacher says" in checked.stdout) == (1, True)


def test_a_pass_that_broke_off_goes_on_and_parts_share_one(made: Path, server: ModelServer) -> None:
    """The file is that of one pass, byte for byte."""

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        if server.asked > 60:
            handler.drop()
        return server.asked > 60

    server.fault = fault
    words = ["cache-logits", *WORDS, "--store", "broken", "--set", "teacher.server.patience=0.3"]
    broken = decant_here(*words, cwd=made)
    assert (broken.returncode, "cannot be reached" in broken.stderr) == (1, True), broken.stderr
    server.fault, server.asked = lambda handler, body: False, 0
    succeed(decant_here(*words, cwd=made))
    assert caches(made, "broken") == caches(made)
    words = ["cache-logits", *WORDS, "--store", "parts", "--set", "cache.tokens_per_batch=128"]
    said = [succeed(decant_here(*words, "--part", part, cwd=made)) for part in ("2/2", "1/2")]
    assert "wrote part 2 of 2" in said[0], "the other part is not asked for"
    assert caches(made, "parts") == caches(made)


def test_the_key_is_read_from_the_variable_and_is_in_no_file_and_no_message(
    made: Path, server: ModelServer
) -> None:
    server.key = SECRET
    words = [
        "cache-logits",
        *WORDS,
        "--store",
        "keyed",
        "--set",
        "teacher.server.api_key_variable=TEACHER_KEY",
    ]
    missing = decant_here(*words, cwd=made)
    assert missing.returncode == 1
    assert missing.stderr.strip() == (
        "decant: teacher.server.api_key_variable: the environment variable of that name is not set, or empty"
    )
    wrong = decant_here(*words, cwd=made, TEACHER_KEY="wrong-" + SECRET)
    assert (wrong.returncode, "answers 401" in wrong.stderr) == (1, True), wrong.stderr
    right = decant_here(*words, "--json", cwd=made, TEACHER_KEY=SECRET)
    shown = json.loads(succeed(right))
    assert [one["rows"] for one in shown] == [
        LogitCache.open(made / one["path"]).num_positions for one in shown
    ]
    assert caches(made, "keyed") == caches(made)
    said = "".join(one.stdout + one.stderr for one in (missing, wrong, right))
    assert SECRET not in said
    for path in made.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_what_the_server_cannot_do_is_said_in_one_line_that_names_the_setting(
    made: Path, server: ModelServer
) -> None:
    def said(*more: str) -> str:
        done = decant_here("cache-logits", *WORDS, "--store", "none", *more, cwd=made)
        lines = [line for line in done.stderr.splitlines() if line.startswith("decant: ")]
        assert (done.returncode, len(lines)) == (1, 1), done.stderr
        assert "Traceback" not in done.stderr
        return lines[0]

    server.limit = 5
    assert "gives 5" in (line := said())
    assert "cache.encoding.head" in line
    server.limit, server.max_length = 10**6, 20
    assert "of a recipe data.max_length" in said()
    server.max_length, server.bos = 256, 7
    assert "the server read" in said()
    server.bos = None
    assert "there are tiny" in said("--set", "teacher.server.model=b")
    server.fault = lambda handler, body: handler.drop() or True
    assert "cannot be reached" in said("--set", "teacher.server.patience=0.3")
    assert "--max-error: a server tells" in said("--max-error", "0.1")
    assert not list((made / "none").glob("*.h5"))


BAD = [
    ("teacher.server.url=localhost:8000", "teacher.server.url: expected http:// or https://"),
    ("teacher.server.url=http://user:word@host/v1", "teacher.server.url: expected an address without a user"),
    ("teacher.server.api_key_variable=sk-1234", "and not the key"),
    ('teacher.server.api_key_variable=["sk-1234"]', "and not the key"),
    ('teacher.server="http://user:sk-1234@host"', 'teacher.server: expected a table, found "http://***@host"'),
    ("teacher.server.url=http://user:sk-1234#5@host", "expected http:// or https://, a host, and perhaps a port"),
    ("teacher.server.url=user:sk-1234@host/v1", "teacher.server.url: expected http:// or https:// and a host"),
    ("teacher.server.dialect=tgi", "teacher.server.dialect: expected one of vllm, sglang, llama.cpp, openai"),
    ("teacher.server.concurrency=0", "teacher.server.concurrency: expected a whole number at least 1"),
    ("teacher.server.timeout=0", "teacher.server.timeout: expected a number above 0"),
    ("teacher.server.key=abc", "teacher.server.key: unknown key"),
    ("teacher.epochs=1", "teacher.epochs: the teacher is behind a server"),
    ("teacher.network=transformers:x", "teacher.network: the teacher is the model of teacher.server"),
    ('cache.encoding="hidden"', "cache.encoding.kind: of a teacher behind a server"),
    ("cache.encoding.draws=4", "cache.encoding.draws: of a teacher behind a server"),
    ("cache.encoding.temperatures=[1.0,2.0]", "cache.encoding.temperatures: a server tells probabilities at T = 1"),
    ("cache.precision=bfloat16", "cache.precision: a teacher behind a server computes in what its server does"),
    ('student.network={ name = "cut", layers = [0] }', 'student.network: "cut" is made of its teacher'),
]  # fmt: skip


@pytest.mark.parametrize(("setting", "line"), BAD, ids=[setting for setting, _ in BAD])
def test_settings_that_do_not_fit_a_served_teacher_are_refused(
    tmp_path: Path, setting: str, line: str
) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(port=1))
    with pytest.raises(RecipeError) as refused:
        load_recipe(str(tmp_path / "r.toml"), [setting])
    assert line in str(refused.value)
    assert "sk-1234" not in str(refused.value)


def test_a_resolved_recipe_reads_back_and_other_recipes_have_no_server(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(RECIPE.format(port=1))
    recipe = load_recipe(str(tmp_path / "r.toml"))
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(str(tmp_path / "again.toml")).to_toml() == recipe.to_toml()
    assert recipe.settings.teacher.server is not None
    assert recipe.settings.teacher.server.concurrency == 2
    assert "server" not in load_recipe("digits").to_toml()
    with pytest.raises(RecipeError, match=r"teacher\.server: is of a language model"):
        load_recipe("digits", ['teacher.server={ url = "http://h" }'])
    without = RECIPE.format(port=1).replace('tokenizer = "tokenizer"', "")
    (tmp_path / "r.toml").write_text(without)
    with pytest.raises(RecipeError, match=r"data\.tokenizer: missing, and a server gives none"):
        load_recipe(str(tmp_path / "r.toml"))


@pytest.mark.slow
def test_a_pass_that_was_killed_goes_on_and_ranks_share_one(made: Path, server: ModelServer) -> None:
    held = threading.Event()

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        if server.asked > 30 and len(body["prompt"]) > 12:
            held.wait(20)
        return False

    def kill(children: list[int]) -> None:
        until = time.monotonic() + 20
        while server.asked <= 32 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(children[0], signal.SIGKILL)
        held.set()

    server.fault = fault
    words = ["cache-logits", *WORDS, "--store", "killed"]
    (killed,) = decant_at_once([(words, {})], made, kill)
    assert killed.returncode == -signal.SIGKILL, killed
    server.fault = lambda handler, body: False
    succeed(decant_here(*words, cwd=made))
    assert caches(made, "killed") == caches(made)
    ranks = run_forked(2, lambda rank: ["cache-logits", *WORDS, "--store", "ranks"], made)
    assert [rank.returncode for rank in ranks] == [0, 0], ranks
    assert caches(made, "ranks") == caches(made)


def test_models_of_servers_are_told_apart_by_what_these_say() -> None:
    said = [{"network": {"name": name}, "served": {"root": root}} for name in "ab" for root in "cd"]
    digests = [teacher_digest(one) for one in said]
    assert len(set(digests)) == 4
    assert teacher_digest({**said[0], "outputs": 340}) == digests[0]
    assert None not in digests


def test_a_server_that_gets_another_model_before_the_pass_is_refused(
    folder: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while another process is waited for, which builds the same cache and fails."""
    import torch

    from decant.cache import MismatchError, Store
    from decant.pipeline.phases.cache_logits import cache_logits
    from decant.pipeline.phases.language.plan import LanguagePlan
    from decant.pipeline.phases.language.served_pass import ServedTokensPass

    (folder / "any.toml").write_text((folder / "r.toml").read_text().replace('model = "tiny"', ""))
    monkeypatch.chdir(folder)
    plan = LanguagePlan.of(load_recipe("any.toml"), folder / "any-runs", Store(folder / "any"))
    fill = ServedTokensPass.fill

    def later(self: ServedTokensPass, *given: Any) -> int:
        server.model = "other"
        return fill(self, *given)

    monkeypatch.setattr(ServedTokensPass, "fill", later)
    with pytest.raises(MismatchError, match="has another model now, other, than when it was asked"):
        cache_logits(plan, torch.device("cpu"), lambda holder: None)
    assert not list((folder / "any").glob("*.h5"))
