"""A causal teacher's pass: what is cached is what the teacher says, sample by sample, also after a kill."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import (
    CacheWarning,
    LogitCache,
    MismatchError,
    StorageError,
    Store,
    ValueRefusedError,
    convert_cache,
)
from decant.encodings import Dense, Sparse
from decant.language import TokenDataset, TokenSamples, cache_logits, tokenise
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.language import teacher_pass
from decant.pipeline.language.batches import collate, plan, plan_of
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.shift import ShiftGuard
from decant.pipeline.language.training import CausalCall, TokenBatches
from decant.pipeline.objectives import chunked
from decant.pipeline.own_loop import joint_pass
from decant.pipeline.training import encoding as on_device
from tests.helpers import language
from tests.helpers.freed_memory import given_back


def by_hand(teacher: Any, samples: TokenSamples, index: int, num_outputs: int = 340) -> Any:
    """Logits (n, C) of a sample's positions: each part that sees itself alone goes through the teacher by itself."""
    ids = torch.from_numpy(samples.tokens(index))
    parts = ids.split(samples.groups(index).tolist())
    with torch.inference_mode():
        logits = torch.cat([teacher(input_ids=part[None]).logits[0] for part in parts])
    return logits[samples.positions(index), :num_outputs].float().numpy()


def test_rows_are_what_the_teacher_says_of_each_next_token(
    cache: LogitCache, samples: TokenSamples, teacher: Any
) -> None:
    assert (cache.num_samples, cache.num_outputs, cache.num_positions) == (
        40,
        340,
        int(samples.num_positions.sum()),
    )
    for index in range(len(samples)):
        logits = by_hand(teacher, samples, index)
        rows = cache.rows([index], 0)
        log_probs = logits - np.logaddexp.reduce(logits.astype("f8"), axis=1, keepdims=True)
        kept = np.take_along_axis(log_probs, rows.ids.astype(np.intp), axis=1)
        assert np.allclose(kept, rows.log_probs, rtol=2e-3, atol=2e-3)
        assert (np.sort(kept, axis=1)[:, ::-1][:, 0] == log_probs.max(axis=1)).all()
        ids, at = samples.tokens(index), samples.positions(index)
        recorded = cache.next_log_prob([index], 0)
        assert np.allclose(recorded, log_probs[np.arange(len(at)), ids[at + 1]], rtol=2e-3, atol=2e-3)
        assert cache.tokens([index])[0].tolist() == ids.tolist()
        assert cache.places([index]).tolist() == at.tolist()


@pytest.mark.parametrize(
    "layout",
    [{"rows": "packed"}, {"rows": "packed", "across": True}, {"rows": "pieces"}, {"rows": "documents"}],
    ids=["packed", "across", "pieces", "cut"],
)
def test_every_layout_of_samples_gets_the_rows_of_its_own_places(
    layout: dict[str, Any], samples: TokenSamples, teacher: Any, tmp_path: Path
) -> None:
    laid_out = TokenSamples(samples.corpus, max_length=20, **layout)
    cache = cache_logits(teacher, laid_out, tmp_path / "c.h5", encoding=Dense("float32"), tokens_per_batch=50)
    for index in range(0, len(laid_out), 3):
        assert np.allclose(cache.logits([index], 0), by_hand(teacher, laid_out, index), atol=2e-4), index


def test_hidden_states_and_the_head_give_the_teachers_logits(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked, "_BLOCK", 5 * 340)  # their sums are made of five positions at a time
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding="hidden")
    assert cache.hidden([0], 0).shape == (samples.num_positions[0], 32)
    for index in (0, 7, 39):
        logits = by_hand(teacher, samples, index)
        assert np.allclose(cache.logits([index], 0), logits, atol=2e-3 * np.abs(logits).max())
        log_probs = logits - np.logaddexp.reduce(logits.astype("f8"), axis=1, keepdims=True)
        ids, at = samples.tokens(index), samples.positions(index)
        recorded = cache.next_log_prob([index], 0)
        assert np.allclose(recorded, log_probs[np.arange(len(at)), ids[at + 1]], rtol=2e-3, atol=2e-3)
    assert (
        cache_logits(teacher, samples, tmp_path / "c.h5", encoding="hidden").manifest.key
        == cache.manifest.key
    )


def test_of_a_chat_only_the_assistants_places_have_rows(tokenizer: Any, teacher: Any, tmp_path: Path) -> None:
    rows = [language.chat("how was it?", "great fun", "and?", "moving"), language.chat("and you?", "boring")]
    corpus = tokenise(rows, tokenizer, tmp_path / "chats", targets="assistant")
    samples = TokenSamples(corpus, max_length=64)
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Dense("float32"))
    for index in (0, 1):
        assert np.allclose(cache.logits([index], 0), by_hand(teacher, samples, index), atol=2e-4)
        answered = cache.tokens([index])[0][cache.places([index]) + 1]
        assert (
            tokenizer.decode(answered.tolist()) == ("great fun<|end|>moving<|end|>", "boring<|end|>")[index]
        )


@pytest.mark.parametrize("layout", [{}, {"rows": "packed"}, {"rows": "packed", "across": True}], ids=str)
def test_batches_hold_the_budget_and_every_sample_once(samples: TokenSamples, layout: dict[str, Any]) -> None:
    """What is computed counts, padding between the documents of a packed row too."""
    chosen, computed = TokenSamples(samples.corpus, max_length=64, **layout), 0
    planned = [batch for window in plan_of(chosen, 256) for batch in window]
    assert sorted(np.concatenate(planned).tolist()) == list(range(len(chosen)))
    for some in planned:
        batch = collate(chosen, some)
        flat = torch.cat([block.ids.flatten() for block in batch.blocks])
        assert len(flat) <= 256 or len(some) == 1
        assert torch.equal(flat[batch.places], batch.current_ids)
        assert torch.equal(flat[batch.places + 1], batch.next_ids)
        assert batch.token_ids.tolist() == np.concatenate([chosen.tokens(one) for one in some]).tolist()
        assert sum(int(block.mask.sum()) for block in batch.blocks) == len(batch.token_ids)
        computed += len(flat)
    assert computed < 1.5 * chosen.lengths.sum()


def test_a_student_sees_each_document_of_a_packed_row_alone(samples: TokenSamples, teacher: Any) -> None:
    packed = TokenSamples(samples.corpus, max_length=64, rows="packed")
    inputs, labels = TokenBatches(packed).batch(np.array([[1, 0], [3, 0], [0, 0]]))
    with torch.no_grad():
        pending = CausalCall(teacher, packed, 340)(teacher, inputs, "student.tokens_per_batch")
    expected = np.concatenate([by_hand(teacher, packed, index) for index in (1, 3, 0)])
    assert np.allclose((pending.hidden @ pending.weight.detach().t()).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(inputs) > 3, "one block"
    assert len(labels) == len(expected)


def test_memory_that_runs_out_names_the_samples_and_the_setting(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states(model: CausalModel, *batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(CausalModel, "states_at", states)
    with pytest.raises(
        ModelError, match=r"batch of \d+ × \d+ tokens, of samples \d+ to \d+; set a smaller tokens_per_batch"
    ):
        cache_logits(teacher, samples, tmp_path / "none.h5", tokens_per_batch=200, show_progress=False)


def test_windows_begin_where_blocks_do_and_hold_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decant.pipeline.language.batches._BATCHES", 3)
    lengths, starts = np.random.default_rng(0).integers(1, 9, 200), np.r_[0, 7:200:13]
    windows = plan(lengths, 20, starts)
    firsts = [min(map(min, window)) for window in windows]
    assert set(firsts) <= set(starts.tolist())
    assert len(windows) > 8
    assert np.concatenate([np.sort(np.concatenate(window)) for window in windows]).tolist() == list(
        range(200)
    )
    assert plan(lengths, 10**9, starts)[0][0].tolist() == list(range(200))


@pytest.mark.slow
def test_two_processes_share_the_pass_and_make_the_file_of_one(
    samples: TokenSamples, teacher: Any, tmp_path: Path
) -> None:
    from tests.integrations.launching import TORCHRUN, launch

    script = tmp_path / "two.py"
    script.write_text(
        "import sys, decant.pipeline.language.batches as batches, decant.pipeline.language.caching as caching\n"
        "from decant.encodings import Sparse\n"
        "from decant.language import TokenSamples, cache_logits, tokenise\n"
        "from tests.helpers import language\n"
        "batches._BATCHES, write, calls = 2, caching._write, []\n"
        "caching._write = lambda *given: (calls.append(1), write(*given))\n"
        "corpus = tokenise(language.sentences(400), language.tokenizer(), sys.argv[1] + '/texts')\n"
        "cache_logits(language.llama(352), TokenSamples(corpus, max_length=64), sys.argv[1] + '/c.h5', "
        "encoding=Sparse(head=16), tokens_per_batch=128)\n"
        "print('wrote', len(calls), flush=True)\n"
    )
    for folder, words in (("one", [sys.executable]), ("two", TORCHRUN)):
        (tmp_path / folder).mkdir()
        said = launch(*words, script, tmp_path / folder, cwd=tmp_path)
        assert said.count("wrote ") == (2 if folder == "two" else 1), said
        assert "wrote 0" not in said
    assert (tmp_path / "one/c.h5").read_bytes() == (tmp_path / "two/c.h5").read_bytes()


def test_a_cache_is_found_again_and_of_anything_else_refused_by_name(
    cache: LogitCache, samples: TokenSamples, teacher: Any, folder: Path, tokenizer: Any
) -> None:
    place, encoding = folder / "teacher.h5", Sparse(head=16)
    again = cache_logits(teacher, samples, place, encoding=encoding)
    assert again.manifest.key == cache.manifest.key
    other = tokenise(language.sentences(41), tokenizer, folder / "other.tokens")
    template = tokenise(
        language.sentences(40), language.tokenizer(language.MARKED), folder / "template.tokens"
    )
    shorter = TokenSamples(samples.corpus, max_length=20)
    capped = language.llama(352, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    capped.load_state_dict(teacher.state_dict())
    cases: list[tuple[Any, TokenSamples, dict[str, Any], str]] = [
        (language.llama(352, seed=1), samples, {}, "teacher.weights_sha256"),
        (capped, samples, {}, "teacher.settings.rope_parameters.rope_theta"),
        (teacher, shorter, {}, "data.samples.max_length: expected 20, found 64"),
        (teacher, TokenSamples(other, max_length=64), {}, "data.texts.sha256"),
        (teacher, TokenSamples(template, max_length=64), {}, "data.tokenizer.chat_template"),
        (teacher, samples, {"encoding": Sparse(head=8)}, "encoding.head: expected 8, found 16"),
        (teacher, samples, {"num_outputs": 341}, "teacher.outputs: expected 341, found 340"),
    ]
    for network, laid_out, options, said in cases:
        with pytest.raises(MismatchError, match=said):
            cache_logits(network, laid_out, place, **{"encoding": encoding, **options})


def test_a_teacher_that_differs_in_what_no_weight_shows_is_refused(
    cache: LogitCache,
    samples: TokenSamples,
    teacher: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a whole cache, and of one that was begun: a hook stands for an adapter that is on or off, and the like."""
    other = language.llama(352, rms_norm_eps=0.05)
    other.load_state_dict(teacher.state_dict())
    with pytest.raises(MismatchError, match=r"LlamaForCausalLM is by its name .* nats apart on average"):
        cache_logits(other, samples, cache.path, encoding=Sparse(head=16))

    calls, hidden = 0, CausalModel.hidden_at

    def interrupted(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return hidden(*given)

    def run(network: Any) -> LogitCache:
        return cache_logits(network, samples, tmp_path / "c.h5", encoding=Sparse(head=4), tokens_per_batch=64)

    monkeypatch.setattr(CausalModel, "hidden_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(teacher)
    monkeypatch.undo()
    with pytest.raises(MismatchError, match=r"c\.h5.*nats apart on average"):
        run(other)
    run(teacher)


def test_autocast_around_the_pass_changes_no_row(
    samples: TokenSamples, teacher: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"encoding": Sparse(head=4), "show_progress": False}
    cache_logits(teacher, samples, tmp_path / "plain.h5", **run)
    with torch.autocast("cpu", torch.bfloat16):
        cache_logits(teacher, samples, tmp_path / "cast.h5", **run)
    assert (tmp_path / "plain.h5").read_bytes() == (tmp_path / "cast.h5").read_bytes()
    assert "runs the teacher in its own dtype" in capsys.readouterr().err


def test_a_head_of_more_outputs_than_there_are_tokens(samples: TokenSamples, tmp_path: Path) -> None:
    """By default all of a small vocabulary are kept; what was asked for is refused in the caller's words."""
    few = TokenSamples(_digits(tmp_path), max_length=9)
    network = torch.nn.Embedding(12, 12)
    network.forward = lambda input_ids: torch.nn.functional.embedding(input_ids, network.weight)  # type: ignore[method-assign]
    assert cache_logits(network, few, tmp_path / "c.h5").manifest.encoding == Sparse(head=12)
    with pytest.raises(DataError, match="head and draws together, are more than the 12 tokens"):
        cache_logits(network, few, tmp_path / "d.h5", encoding=Sparse(head=10, draws=3))


def _digits(folder: Path) -> Any:
    """Texts of a tokenizer of twelve tokens."""
    import tokenizers
    import transformers

    known = {**{str(digit): digit for digit in range(10)}, "<end>": 10, "<unk>": 11}
    model = tokenizers.models.BPE(known, [], unk_token="<unk>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(model), eos_token="<end>", unk_token="<unk>"
    )
    return tokenise(["31415", "27"], tokenizer, folder / "digits.tokens")


def test_a_killed_pass_goes_on_and_ends_in_the_same_bytes(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def run(name: str, kill_at: int | None = None) -> int:
        """How many batches the teacher read."""
        nonlocal calls
        calls, hidden = 0, CausalModel.hidden_at

        def counted(*given: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return hidden(*given)

        with monkeypatch.context() as patch:
            patch.setattr(CausalModel, "hidden_at", counted)
            encoding = Sparse(head=4, draws=4)
            cache_logits(teacher, samples, tmp_path / name, encoding=encoding, views=2, tokens_per_batch=64)
        return calls

    whole = run("whole.h5")
    child = os.fork()
    if not child:
        run("killed.h5", kill_at=8)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (tmp_path / "killed.h5").exists()
    assert run("killed.h5") < whole
    assert (tmp_path / "whole.h5").read_bytes() == (tmp_path / "killed.h5").read_bytes()


def test_ranks_of_a_script_share_the_batches_of_few_samples(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of which are one window."""
    settings: dict[str, Any] = {"encoding": Sparse(head=4), "tokens_per_batch": 64}
    alone = cache_logits(teacher, samples, tmp_path / "alone.h5", **settings)
    batches = len(plan_of(samples, 64)[0])
    asked, computed, hidden = list[str](), Counter[int](), CausalModel.hidden_at

    class TwoRanks:
        """As another rank sees them that took every second unit, and was killed."""

        size = 2

        def counter(self, name: str) -> Callable[[], int]:
            asked.append(name)
            return partial(next, itertools.count(2, 2) if len(asked) == 1 else itertools.count(1))

    def counted(*given: Any) -> Any:
        computed[len(asked)] += 1
        return hidden(*given)

    monkeypatch.setattr(CausalModel, "hidden_at", counted)
    monkeypatch.setattr(joint_pass, "ranks_of_script", TwoRanks)
    shared = cache_logits(teacher, samples, tmp_path / "shared.h5", **settings)
    assert computed == {1: batches // 2, 2: batches - batches // 2}
    assert shared.path.read_bytes() == alone.path.read_bytes()


@pytest.mark.parametrize("encoding", [Sparse(head=2, draws=6), Dense("float16"), "hidden"], ids=str)
def test_rows_that_several_threads_encode_are_those_of_one(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Any
) -> None:
    monkeypatch.setattr(teacher_pass, "_FEWEST_ROWS", 5)
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        cache_logits(teacher, samples, tmp_path / f"{count}.h5", encoding=encoding, tokens_per_batch=50)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "3.h5").read_bytes()


def test_draws_that_a_device_makes_are_those_of_the_host(
    samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = []
    for name in ("host", "device"):
        monkeypatch.setattr(teacher_pass, "encodes_on", lambda device, name=name: name == "device")
        encoding = Sparse(head=2, draws=6)
        caches.append(cache_logits(teacher, samples, tmp_path / name, encoding=encoding, views=2))
    for view in (0, 1):
        host, device = (cache.rows(np.arange(len(samples)), view) for cache in caches)
        assert (host.ids == device.ids).all()
        assert np.allclose(host.log_tail, device.log_tail, atol=1e-5)
        log_probs = [cache.next_log_prob(np.arange(len(samples)), view) for cache in caches]
        assert np.allclose(*log_probs, rtol=2**-9)


@pytest.mark.parametrize("encoding", ["hidden", Sparse(head=4)], ids=str)
def test_what_a_device_encodes_of_bfloat16_is_that_of_the_host(
    samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: Any
) -> None:
    """Of which it makes no copy in float32; hidden states and log-probabilities are the same bytes."""
    narrow, caches = language.llama(352).bfloat16(), []
    for name in ("host", "device"):
        for module in (teacher_pass, on_device):
            monkeypatch.setattr(module, "encodes_on", lambda device, name=name: name == "device")
        caches.append(cache_logits(narrow, samples, tmp_path / name, encoding=encoding, tokens_per_batch=100))
    if encoding == "hidden":
        assert (tmp_path / "host").read_bytes() == (tmp_path / "device").read_bytes()
        return
    host, device = (cache.rows(np.arange(len(samples)), 0) for cache in caches)
    assert (host.ids == device.ids).all()
    assert np.allclose(host.log_tail, device.log_tail, atol=1e-5)


def test_memory_that_a_batch_has_freed_is_kept_for_the_next(
    samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor, where logits of some positions are pieces of 64 MiB."""
    given_back(monkeypatch)
    hidden, faults = CausalModel.hidden_at, list[int]()

    def layers(*given: Any) -> Any:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(4 << 20) for _ in range(3)]
        del kept
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return hidden(*given)

    monkeypatch.setattr(CausalModel, "hidden_at", layers)
    cache_logits(language.llama(352), samples, tmp_path / "c.h5", tokens_per_batch=150)
    assert sorted(faults)[len(faults) // 2] < 12_288 / 2, f"{faults} pages of 4 KiB, of 12,288"


def test_hidden_states_that_overflow_are_named_with_their_value(
    samples: TokenSamples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a device has cast them already."""
    wide, said = language.llama(352), list[str]()
    with torch.no_grad():
        wide.model.norm.weight.mul_(1e5)
    for there in (False, True):
        for module in (teacher_pass, on_device):
            monkeypatch.setattr(module, "encodes_on", lambda device, there=there: there)
        with pytest.raises(ValueRefusedError, match=r"hidden state -?\d.* overflows float16") as refused:
            cache_logits(wide, samples, tmp_path / f"{there}.h5", encoding="hidden", tokens_per_batch=100)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_outputs_that_are_shifted_by_one_are_doubted(samples: TokenSamples, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache_logits(language.bigram(samples, 340), samples, tmp_path / "right.h5")
    with pytest.warns(CacheWarning, match="are its outputs shifted by one"):
        cache_logits(language.bigram(samples, 340, shift=0), samples, tmp_path / "shifted.h5")


@pytest.mark.parametrize(
    ("count", "here", "following", "is_doubtful"),
    [(100, 50, 16, True), (100, 50, 17, False), (100, 24, 0, False), (63, 63, 0, False), (64, 64, 0, True)],
)
def test_outputs_are_doubted_where_the_token_itself_is_likely_and_the_next_one_is_not(
    count: int, here: int, following: int, is_doubtful: bool
) -> None:
    """Of rows of more tokens the 16 most likely count."""
    guard, tokens = ShiftGuard(), np.arange(count)
    likely = np.full((count, 20), -1)
    likely[:here, 3] = tokens[:here]
    likely[:following, 15] = tokens[:following] + 1
    likely[:, 16] = tokens + 1
    guard.see_likely(likely, tokens + 1, tokens)
    assert (guard.doubt() is not None) == is_doubtful
    assert guard.wants_more
    guard.count = 512
    assert not guard.wants_more
    guard.see(torch.eye(4), torch.tensor([1, 2, 3, 0]), torch.arange(4))
    assert guard.next_found == following + 4, "of fewer outputs all are"


def test_the_teacher_gets_its_mode_back(samples: TokenSamples, tmp_path: Path) -> None:
    teacher = language.llama(352, attention_dropout=0.5).train()
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Dense("float32"))
    assert teacher.training
    assert np.allclose(cache.logits([3], 0), by_hand(teacher.eval(), samples, 3), atol=2e-4)


def test_weights_that_are_spread_over_processes_are_refused(samples: TokenSamples, tmp_path: Path) -> None:
    """By FSDP or tensor parallelism, whose processes would have to compute every batch together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        teacher = fully_shard(language.llama(352), mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ModelError, match=r"embed_tokens.weight is spread over processes \(DTensor\)"):
            cache_logits(teacher, samples, tmp_path / "c.h5")
    finally:
        torch.distributed.destroy_process_group()
    assert not [*tmp_path.glob("c.h5*")]


def test_what_cannot_be_is_refused_before_the_pass(
    samples: TokenSamples, teacher: Any, tmp_path: Path
) -> None:
    short = language.llama(352, max_position_embeddings=8)
    cases: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
        (short, samples, {}, ModelError, "takes 8 tokens at most, and sample .* set max_length = 8"),
        (language.llama(300), samples, {}, ModelError, "knows 300 tokens, and the tokenizer 340"),
        (lambda ids: ids, samples, {}, DataError, "teacher: expected a module"),
        (teacher, ["a text"], {}, DataError, "samples: expected decant.language.TokenSamples, found list"),
        (teacher, samples, {"encoding": "sparse"}, DataError, "encoding: expected one of decant.encodings"),
        (teacher, samples, {"views": 2}, DataError, "views are other draws, and the encoding has none"),
        (teacher, samples, {"tokens_per_batch": 0}, DataError, "tokens_per_batch: expected 1 or more"),
    ]
    for network, laid_out, options, kind, said in cases:
        with pytest.raises(kind, match=said):
            cache_logits(network, laid_out, tmp_path / "c.h5", **options)
    assert not (tmp_path / "c.h5").exists()


def test_a_sparse_cache_made_of_hidden_states_of_bfloat16_is_about_the_next_token(
    samples: TokenSamples, tmp_path: Path
) -> None:
    """The network's own logits are rounded to 8 bits, and those of the conversion are not."""
    teacher = language.llama(340).bfloat16()
    hidden = cache_logits(teacher, samples, tmp_path / "h.h5", encoding="hidden", show_progress=False)
    made = LogitCache.open(convert_cache(Store(tmp_path / "store"), hidden, Sparse(head=64)))
    train = TokenDataset(samples, made)
    assert len(train.collate([train[index] for index in range(len(train))]).labels) == made.num_positions


def test_a_name_that_is_too_long_is_said_so(samples: TokenSamples, teacher: Any, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="name too long; give it a shorter name"):
        cache_logits(teacher, samples, tmp_path.joinpath(*["d" * 200] * 25, "x.h5"))
