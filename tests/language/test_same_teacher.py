"""Whether a teacher says what a cache holds: what is not refused, and what that costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import LogitCache, MismatchError
from decant.language import TokenSamples, cache_logits, tokenise
from decant.pipeline.errors import ModelError
from decant.pipeline.language import building, same_teacher
from decant.pipeline.own_loop import teacher as teachers
from tests.helpers import language


def cached(network: Any, samples: TokenSamples, path: Path) -> LogitCache:
    return cache_logits(network, samples, path, name="teacher", show_progress=False)


def further(nats: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every network gives log-probabilities that are so far from its own."""
    found = same_teacher._next_log_probs

    def shifted(*given: Any) -> Any:
        log_probs, *more = found(*given)
        return log_probs + nats, *more

    monkeypatch.setattr(same_teacher, "_next_log_probs", shifted)


def with_an_autocast_of_its_own() -> Any:
    """As Accelerate gives it, which makes float32 of the logits."""
    network = language.llama(352)
    forward = network.forward

    def cast(input_ids: Any, attention_mask: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            found = forward(input_ids=input_ids, attention_mask=attention_mask)
        found.logits = found.logits.float()
        return found

    network.forward = cast
    return network


def with_one_layer_in_half_precision() -> Any:
    network = language.llama(352)
    layer = network.model.layers[0].mlp.down_proj.bfloat16()
    layer.register_forward_pre_hook(lambda _, given: (given[0].bfloat16(),))
    layer.register_forward_hook(lambda _, __, output: output.float())
    return network


@pytest.mark.parametrize("made", [with_an_autocast_of_its_own, with_one_layer_in_half_precision])
def test_a_network_that_computes_in_half_precision_is_rounded_so(
    made: Callable[[], Any], samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its first weights are in float32."""
    network = made()
    cached(network, samples, tmp_path / "c.h5")
    further(0.05, monkeypatch)
    cached(network, samples, tmp_path / "c.h5")
    further(0.5, monkeypatch)
    with pytest.raises(MismatchError, match="nats apart on average"):
        cached(network, samples, tmp_path / "c.h5")


@pytest.mark.parametrize(("is_exact", "nats"), [(True, 0.01 + 8 / 512), (False, 0.1 + 8 / 128)])
def test_the_room_is_so_many_nats_and_a_share_of_the_log_probability(
    is_exact: bool, nats: float, samples: TokenSamples, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = np.full(32, -8.0, np.float32)
    model: Any = SimpleNamespace(name="teacher")
    for apart, is_same in ((0.98 * nats, True), (1.02 * nats, False), (np.nan, False)):
        found = np.where(np.arange(32) < 16, stored + apart, stored - apart)
        monkeypatch.setattr(same_teacher, "_next_log_probs", lambda *_, found=found: (found, is_exact))
        refused = contextlib.nullcontext() if is_same else pytest.raises(MismatchError, match="nats apart")
        with refused:
            same_teacher._require(model, samples, 0, stored, "c.h5")


def test_a_cache_may_be_found_that_a_pass_under_autocast_has_made(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As older versions made them of the lines that ask for it."""
    cached(teacher, samples, tmp_path / "c.h5")
    further(0.05, monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        cached(teacher, samples, tmp_path / "c.h5")
    with pytest.raises(MismatchError, match="nats apart on average"):
        cached(teacher, samples, tmp_path / "c.h5")


def test_a_masked_token_among_those_that_follow_hides_no_other_teacher(
    samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = language.llama(352)
    masked = int(samples.tokens(same_teacher._telling(samples, np.ones(len(samples), np.bool_)))[3])

    def mask(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(-1, torch.tensor([masked]), -30_000)

    network.lm_head.register_forward_hook(mask)
    cached(network, samples, tmp_path / "c.h5")
    cached(network, samples, tmp_path / "c.h5")
    further(0.5, monkeypatch)
    with pytest.raises(MismatchError, match="nats apart on average"):
        cached(network, samples, tmp_path / "c.h5")


def test_a_network_that_fails_where_it_lies_is_compared_on_the_device_of_the_pass(
    samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with an attention that is written for GPUs alone."""
    network, devices = language.llama(352), list[str]()
    cached(network, samples, tmp_path / "c.h5")

    @contextlib.contextmanager
    def on(_: Any, device: torch.device) -> Iterator[None]:
        devices.append(str(device))
        yield

    def forward(input_ids: Any) -> Any:
        if devices[-1] != "cuda:7":
            raise RuntimeError("is for GPUs alone")
        return type(network).forward(network, input_ids=input_ids)

    network.forward = forward
    monkeypatch.setattr(teachers, "evaluating", on)
    cache_logits(network, samples, tmp_path / "c.h5", name="teacher", device="cuda:7")
    assert devices == ["cpu", "cuda:7"]
    with pytest.raises(ModelError, match="is for GPUs alone"):
        cached(network, samples, tmp_path / "c.h5")


def test_a_cache_that_another_process_built_meanwhile_is_compared_too(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(teacher, samples, tmp_path / "c.h5")
    further(0.5, monkeypatch)
    answers, find = iter([True]), building.find
    monkeypatch.setattr(building, "find", lambda *asked: None if next(answers, False) else find(*asked))
    with pytest.raises(MismatchError, match="nats apart on average"):
        cached(teacher, samples, tmp_path / "c.h5")
    assert not next(answers, False)


def test_of_samples_with_long_beginnings_the_shortest_is_read_without_its_logits(tmp_path: Path) -> None:
    answer = "it is so, and it was so, and it will be so, again and again"
    texts = [{"prompt": "why " * count, "completion": answer} for count in (500, 300, 400)]
    corpus = tokenise(texts, language.tokenizer(), tmp_path / "t.tokens", targets="assistant")
    samples = TokenSamples(corpus, max_length=4096)
    network = language.llama(352, max_position_embeddings=4096)
    cached(network, samples, tmp_path / "c.h5")
    read, logits = list[int](), list[int]()
    network.model.embed_tokens.register_forward_hook(lambda _, __, output: read.append(output.shape[1]))
    network.lm_head.register_forward_hook(lambda _, __, output: logits.append(output[..., 0].numel()))
    cached(network, samples, tmp_path / "c.h5")
    assert 512 < max(read) < samples.lengths.min(), "of the sample with the fewest tokens"
    assert max(logits) <= 64, "rows of two times 32 tokens, and those of 32 places"
