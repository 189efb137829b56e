"""Log-probabilities that other programs saved become caches; what cannot be theirs is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import (
    FormatError,
    LogitCache,
    Store,
    ValueRefusedError,
    import_top_rows,
    read_npz,
    read_vllm,
)
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
    np.testing.assert_allclose(np.exp(rows.log_tail[:, 0]), rest, rtol=1e-4)


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
    samples = list(read_vllm(tmp_path / "answers.json", kept=3))
    store = Store(tmp_path / "store")
    path = import_top_rows(store, samples, OUTPUTS, **SAYS, tokenizer="digest")
    assert import_top_rows(store, samples, OUTPUTS, **SAYS, tokenizer="digest") == path
    cache = LogitCache.open(path, verify="open")
    assert cache.verify() == []
    for sample in range(len(samples)):
        require_rows(cache, sample)
        assert cache.tokens([sample])[0].tolist() == TOKENS
        expected = LOG_PROBS[np.arange(4), TOKENS[1:]]
        np.testing.assert_allclose(cache.next_log_prob([sample]), expected, rtol=1e-3)
    assert cache.positions is not None
    assert cache.positions.identity["tokenizer"] == "digest"


def test_arrays_become_a_cache(tmp_path: Path) -> None:
    ids = np.argsort(-LOG_PROBS, axis=1)[:, 2::-1]  # in any order
    log_probs = np.take_along_axis(LOG_PROBS, ids, axis=1)
    arrays = {
        "lengths": np.array([5, 1, 5]),
        "tokens": np.array([*TOKENS, 7, *TOKENS]),
        "ids": np.concatenate([ids, ids]),
        "log_probs": np.concatenate([log_probs, log_probs]),
    }
    np.savez(tmp_path / "rows.npz", **arrays)
    samples = list(read_npz(tmp_path / "rows.npz"))
    cache = LogitCache.open(import_top_rows(Store(tmp_path / "store"), samples, OUTPUTS, **SAYS))
    assert cache.lengths.tolist() == [4, 0, 4]
    require_rows(cache, 0)
    require_rows(cache, 2)
    known = [token in row for token, row in zip(TOKENS[1:], ids.tolist(), strict=True)]
    assert np.isnan(cache.next_log_prob([2])).tolist() == [not one for one in known]
    for wrong, says in (
        ({"lengths": np.array([5, 2, 5])}, "as many tokens and ids as they say"),
        ({"ids": arrays["ids"][:-1]}, r"expected ids and log_probs \(8, k\)"),
        ({"ids": None}, "expected lengths, tokens, ids and log_probs"),
        ({"tokens": np.array([{}] * 11)}, "not a .npz file of plain arrays"),
    ):
        spoilt = {name: value for name, value in {**arrays, **wrong}.items() if value is not None}
        np.savez(tmp_path / "wrong.npz", **spoilt)
        with pytest.raises(FormatError, match=says):
            list(read_npz(tmp_path / "wrong.npz"))
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(FormatError, match=r"not a \.npz file"):
        list(read_npz(tmp_path / "text.npz"))


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
        list(read_vllm(tmp_path / "answers.json", kept=3))


def test_what_is_no_json_and_no_softmax_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text("{no")
    with pytest.raises(FormatError, match="not JSON, and no lines of JSON"):
        list(read_vllm(tmp_path / "answers.json", kept=3))
    (tmp_path / "answers.json").write_text("[3]")
    with pytest.raises(FormatError, match="expected an object for each sample, found 3"):
        list(read_vllm(tmp_path / "answers.json", kept=3))
    wide = answer()
    wide["prompt_logprobs"][2] = {str(one): {"logprob": -0.1} for one in range(4)}
    (tmp_path / "answers.json").write_text(json.dumps(wide))
    samples = list(read_vllm(tmp_path / "answers.json", kept=3))
    with pytest.raises(ValueRefusedError, match=r"position 1.*head and tail do not add up to 1"):
        import_top_rows(Store(tmp_path / "store"), samples, OUTPUTS, **SAYS)
    with pytest.raises(ValueRefusedError, match="ids: expected 0 to 7"):
        import_top_rows(Store(tmp_path / "store"), list(_good(tmp_path)), 8, **SAYS)


def _good(folder: Path) -> Any:
    (folder / "good.json").write_text(json.dumps(answer(tokens=[0] * 5)))
    return read_vllm(folder / "good.json", kept=3)
