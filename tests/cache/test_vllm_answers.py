"""Answers of vLLM become caches; what cannot be theirs is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from decant.cache import FormatError, LogitCache, Store, ValueRefusedError, import_rows, read_vllm
from decant.pipeline.cli.main import decant
from tests.cache.test_compact import softmax

OUTPUTS = 12
LOGITS = np.random.default_rng(0).standard_normal((4, OUTPUTS)) * 2
LOG_PROBS = np.log(softmax(LOGITS, 1.0))
TOKENS = [3, 11, 0, 5, 5]
SAYS: dict[str, Any] = {"teacher": {"network": "mine"}, "data": {"name": "texts"}}


def answer(kept: int = 3, tokens: list[int] = TOKENS) -> dict[str, Any]:
    """As vLLM answers: nothing of the first token, and of each other the k likeliest and that token."""
    rows: list[Any] = [None]
    for log_probs, token in zip(LOG_PROBS, tokens[1:], strict=True):
        ids = dict.fromkeys([token, *np.argsort(-log_probs)[:kept].tolist()])
        rows.append({str(one): {"logprob": log_probs[one], "rank": 1, "decoded_token": "a"} for one in ids})
    return {"prompt_token_ids": tokens, "prompt_logprobs": rows}


def _absent(of: dict[str, Any]) -> int:
    """A token of which nothing is said at position 1."""
    return next(token for token in range(OUTPUTS) if str(token) not in of["prompt_logprobs"][2])


def require_rows(cache: LogitCache, sample: int) -> None:
    rows = cache.rows([sample])
    assert rows.ids.tolist() == np.argsort(-LOG_PROBS, axis=1)[:, :3].tolist()
    np.testing.assert_allclose(rows.log_probs, -np.sort(-LOG_PROBS, axis=1)[:, :3], rtol=1e-3)
    rest = np.exp(-np.sort(-LOG_PROBS, axis=1)[:, 3:]).sum(1)
    np.testing.assert_allclose(np.exp(rows.log_tail[:, 0]), rest, rtol=2e-3)


@pytest.mark.parametrize("form", ["one", "list", "lines", "choices"])
def test_answers_of_vllm_become_a_cache(tmp_path: Path, form: str) -> None:
    several = [answer(), answer(5)]
    text = {
        "one": json.dumps(answer()),
        "list": json.dumps(several),
        "lines": "\n".join(json.dumps(one) for one in several),
        "choices": json.dumps([{"choices": [one]} for one in several]),
    }[form]
    (tmp_path / "answers.json").write_text(text)
    arrays, store = read_vllm(tmp_path / "answers.json", kept=3), Store(tmp_path / "store")
    path = import_rows(store, arrays, num_outputs=OUTPUTS, **SAYS, tokenizer="digest")
    assert import_rows(store, arrays, num_outputs=OUTPUTS, **SAYS, tokenizer="digest") == path
    cache = LogitCache.open(path, verify="open")
    assert cache.verify() == []
    for sample in range(cache.num_samples):
        require_rows(cache, sample)
        assert cache.tokens([sample])[0].tolist() == TOKENS
        expected = LOG_PROBS[np.arange(4), TOKENS[1:]]
        np.testing.assert_allclose(cache.next_log_prob([sample]), expected, rtol=1e-3)
    assert cache.positions is not None
    assert cache.positions.identity["tokenizer"] == "digest"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: one.pop("prompt_logprobs"), "sample 0: has no prompt_logprobs"),
        (lambda one: one.pop("prompt_token_ids"), "sample 0: expected prompt_token_ids and prompt_logprobs"),
        (lambda one: one["prompt_token_ids"].append(3), "of one length"),
        (
            lambda one: one["prompt_token_ids"].__setitem__(2, _absent(one)),
            "position 1: the next token is .* another prompt",
        ),
        (lambda one: one["prompt_logprobs"].__setitem__(3, None), "position 2: expected {id: {logprob: …}}"),
        (lambda one: one["prompt_logprobs"].__setitem__(4, {"5": {"logprob": -1}}), "position 3: 1 log-prob"),
    ],
)
def test_answers_that_cannot_be_are_refused(tmp_path: Path, change: Any, says: str) -> None:
    one = answer(tokens=list(TOKENS))
    change(one)
    (tmp_path / "answers.json").write_text(json.dumps(one))
    with pytest.raises(FormatError, match=says):
        read_vllm(tmp_path / "answers.json", kept=3)


ROW = '"3": {"logprob": -0.2}, "1": {"logprob": -2.0}'


@pytest.mark.parametrize(
    ("ids", "row", "says"),
    [
        ("[5, 3]", f'{ROW}, "1": {{"logprob": -9}}', "'1' is there twice in one object"),
        ("[5, 3]", f'{ROW}, " 1": {{"logprob": -9}}', "expected {id: {logprob: …}}"),
        ("[5, 3]", f'{ROW}, "99999999999999999999": {{"logprob": -9}}', "expected {id: {logprob: …}}"),
        ("[5, 3]", f'{ROW}, "2": {{"logprob": "-9"}}', "expected {id: {logprob: …}}"),
        ("[5, 3]", f'{ROW}, "2": {{"logprob": true}}', "expected {id: {logprob: …}}"),
        ("[null, 3]", ROW, "prompt_token_ids: expected numbers of 0 or more, found nothing"),
        ("[5.0, 3]", ROW, "prompt_token_ids: expected numbers of 0 or more, found 5.0"),
        ("[true, 3]", ROW, "prompt_token_ids: expected numbers of 0 or more, found True"),
        ("[5, [3]]", ROW, "prompt_token_ids: expected numbers of 0 or more, found .3."),
        (f"[{2**70}, 3]", ROW, "prompt_token_ids: expected numbers of 0 or more, found 1180591"),
    ],
)
def test_numbers_that_are_none_or_there_twice_are_refused(
    tmp_path: Path, ids: str, row: str, says: str
) -> None:
    path = tmp_path / "answers.json"
    path.write_text(f'{{"prompt_token_ids": {ids}, "prompt_logprobs": [null, {{{row}}}]}}')
    with pytest.raises(FormatError, match=says):
        read_vllm(path, kept=2)


def test_answers_without_rows_are_named(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    for text in ("", "[]", '{"prompt_token_ids": [5], "prompt_logprobs": [null]}'):
        path.write_text(text)
        with pytest.raises(
            FormatError, match="no rows: there is one for each token of a prompt but the last"
        ):
            read_vllm(path, kept=3)
    for kept in (0, -1, 2.0, "3", None):
        with pytest.raises(ValueError, match="kept: expected a whole number of 1 or more, found"):
            read_vllm(path, kept=kept)  # type: ignore[arg-type]


def test_what_is_no_json_and_no_softmax_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    for text, says in (
        ("{no", "not JSON, and no lines of JSON"),
        ("[3]", "expected an object for each sample"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=says):
            read_vllm(path, kept=3)
    wide = answer()
    wide["prompt_logprobs"][2] = {str(one): {"logprob": -0.1} for one in range(4)}
    path.write_text(json.dumps(wide))
    with pytest.raises(ValueRefusedError, match="their probabilities sum to 2"):
        import_rows(Store(tmp_path / "store"), read_vllm(path, kept=3), num_outputs=OUTPUTS, **SAYS)


def test_the_command_takes_answers(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps(answer()))
    words = ["cache", "import", str(tmp_path / "answers.jsonl"), "--outputs", "12", "--head", "3"]
    words += ["--teacher", "mine", "--data", "texts", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(decant, words)
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "store").glob("*.h5")
    require_rows(LogitCache.open(path), 0)


def test_of_many_lines_one_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """What is held is numbers of two rows each, and not the text with all that servers say beside them."""
    path, token = tmp_path / "answers.jsonl", {"decoded_token": "x" * 100, "rank": 1}
    row = {str(one): {"logprob": -1.0 - one, **token} for one in range(4)}
    answer = json.dumps({"prompt_token_ids": [3] * 21, "prompt_logprobs": [None, *[row] * 20]})
    path.write_text(f"{answer}\n" * 200)
    tracemalloc.start()
    arrays = read_vllm(path, kept=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["ids"].shape == (4_000, 2)
    assert peak < path.stat().st_size / 2
    path.write_text(f"[{answer}, {answer}]")
    assert read_vllm(path, kept=2)["lengths"].tolist() == [20, 20]
    path.write_text(f"[{answer}]\n{answer}\n")
    with pytest.raises(FormatError, match="expected an object for each sample, found"):
        read_vllm(path, kept=2)
