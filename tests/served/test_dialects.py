"""Each kind of server fills the cache that the network's own pass fills."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import LogitCache
from decant.encodings import Sparse
from decant.language import ServedTeacher, TokenDataset, TokenSamples, cache_logits, measure, tokenise
from decant.pipeline.errors import ServerError
from tests.helpers import language
from tests.helpers.model_server import Handler, serving
from tests.served.conftest import HEAD


def require_same(cache: LogitCache, local: LogitCache) -> None:
    every = np.arange(local.num_samples)
    ours, theirs = cache.rows(every, 0), local.rows(every, 0)
    assert (ours.ids == theirs.ids).mean() > 0.995
    assert np.allclose(ours.log_probs, theirs.log_probs, rtol=2e-3, atol=2e-3)
    assert np.allclose(np.exp(ours.log_tail), np.exp(theirs.log_tail), atol=1e-4)
    assert np.allclose(cache.next_log_prob(every, 0), local.next_log_prob(every, 0), rtol=2e-3, atol=2e-3)
    assert (cache.tokens(every)[0] == local.tokens(every)[0]).all()


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai"])
def test_a_server_fills_the_cache_that_the_network_fills(
    dialect: str,
    samples: TokenSamples,
    network: Any,
    local: LogitCache,
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(network, dialect, tokenizer) as server:
        teacher = ServedTeacher(f"{server.url}/v1", concurrency=3)
        cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=HEAD)
        assert (server.most_at_once, teacher.root) <= (4, server.url)  # and one that compares
        require_same(cache, local)
        left = np.exp(local.rows(np.arange(12), 0).log_tail).mean()
        said = capsys.readouterr().err
        assert f"the 8 likeliest tokens of a place leave {left * 100:.0f}"[:-1] in said
        assert "they serve T = 1 alone" in said
        asked = server.asked
        again = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=HEAD)
        assert again.manifest.key == cache.manifest.key
        assert server.asked - asked < 12  # it is compared with what it says now, and not asked for all
    measured = measure(network, samples, cache)
    assert measured.kl < 1e-3
    assert len(TokenDataset(samples, cache)) == 12


def test_llama_cpp_is_asked_for_each_place(network: Any, tokenizer: Any, tmp_path: Path) -> None:
    rows = [language.chat("how was it?", "great fun"), language.chat("and you?", "boring")]
    corpus = tokenise(rows, tokenizer, tmp_path / "chats", targets="assistant")
    samples = TokenSamples(corpus, max_length=64)
    local = cache_logits(network, samples, tmp_path / "local.h5", encoding=HEAD)
    with serving(network, "llama.cpp") as server:
        cache = cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=HEAD)
        assert server.most_at_once <= 2  # it says that it has two slots
        count = int(samples.num_positions.sum())
        assert server.asked < 8 * count
    require_same(cache, local)


@pytest.mark.parametrize("across", [False, True])
def test_documents_of_a_packed_row_are_asked_for_as_they_see_one_another(
    across: bool, samples: TokenSamples, network: Any, tmp_path: Path
) -> None:
    packed = TokenSamples(samples.corpus, max_length=40, rows="packed", across=across)
    local = cache_logits(network, packed, tmp_path / "local.h5", encoding=HEAD)
    with serving(network, "vllm") as server:
        cache = cache_logits(ServedTeacher(server.url), packed, tmp_path / "c.h5", encoding=HEAD)
    require_same(cache, local)


def test_tokens_that_are_named_by_their_texts_are_known_where_a_text_is_of_one(
    samples: TokenSamples,
    network: Any,
    local: LogitCache,
    tokenizer: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(network, "openai-text", tokenizer) as server:
        cache = cache_logits(ServedTeacher(server.url), samples, tmp_path / "c.h5", encoding=Sparse(head=2))
        assert "places likely tokens are named by a text that is of several tokens" in capsys.readouterr().err
        every = np.arange(12)
        assert np.allclose(cache.next_log_prob(every, 0), local.next_log_prob(every, 0), rtol=2e-3, atol=2e-3)
        ours, theirs = cache.rows(every, 0), local.rows(every, 0)
        for ids, log_probs, known_ids, known in zip(
            ours.ids, ours.log_probs, theirs.ids, theirs.log_probs, strict=True
        ):
            same = [(one, value) for one, value in zip(ids, log_probs, strict=True) if one in known_ids]
            assert np.allclose(
                [known[known_ids == one][0] for one, _ in same], [v for _, v in same], atol=5e-3
            )
        with pytest.raises(ServerError, match="by texts that are of several tokens, and 60 are to be kept"):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "d.h5", encoding=Sparse(head=60))
        server.limit = 2
        with pytest.raises(ServerError, match="texts that are of several tokens, and 2 are to be kept"):
            cache_logits(ServedTeacher(server.url), samples, tmp_path / "e.h5", encoding=Sparse(head=2))


def test_answers_that_come_in_another_order_are_put_where_they_belong(
    samples: TokenSamples, network: Any, local: LogitCache, tmp_path: Path
) -> None:
    with serving(network, "vllm") as server:

        def slow(handler: Handler, body: dict[str, Any]) -> bool:
            time.sleep(0.002 * (len(body["prompt"]) % 7))
            return False

        server.fault = slow
        cache = cache_logits(
            ServedTeacher(server.url, concurrency=6), samples, tmp_path / "c.h5", encoding=HEAD
        )
        assert 2 <= server.most_at_once <= 7  # and one that compares
    require_same(cache, local)


@pytest.mark.slow
def test_two_processes_share_the_pass_and_make_the_file_of_one(network: Any, tmp_path: Path) -> None:
    from tests.integrations.launching import TORCHRUN, launch

    script = tmp_path / "two.py"
    script.write_text(
        "import sys, decant.pipeline.language.batches as batches\n"
        "from decant.encodings import Sparse\n"
        "from decant.language import ServedTeacher, TokenSamples, cache_logits, tokenise\n"
        "from decant.pipeline.language.served_pass import ServedPass\n"
        "from tests.helpers import language\n"
        "batches._BATCHES, write, wrote = 2, ServedPass._write, []\n"
        "ServedPass._write = lambda *given: (wrote.append(len(given[2])), write(*given))\n"
        "corpus = tokenise(language.sentences(300), language.tokenizer(), sys.argv[1] + '/texts')\n"
        "cache_logits(ServedTeacher(sys.argv[2], concurrency=2), TokenSamples(corpus, max_length=64), "
        "sys.argv[1] + '/c.h5', encoding=Sparse(head=16), tokens_per_batch=128)\n"
        "print('wrote', sum(wrote), flush=True)\n"
    )
    with serving(network, "vllm") as server:
        for folder, words in (("one", [sys.executable]), ("two", TORCHRUN)):
            (tmp_path / folder).mkdir()
            said = launch(*words, script, tmp_path / folder, server.url, cwd=tmp_path)
            counts = [int(line.split()[1]) for line in said.splitlines() if line.startswith("wrote ")]
            assert sum(counts) == 300, said
            assert min(counts) > 0
    assert (tmp_path / "one/c.h5").read_bytes() == (tmp_path / "two/c.h5").read_bytes()
