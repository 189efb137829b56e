"""Batches for a student: every token is the one that the teacher read, and every row is about the next one."""

from __future__ import annotations

import copy
import re
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from decant.cache import CorruptError, LogitCache, MismatchError, SparseRows
from decant.cache.io import usage
from decant.encodings import Dense, Sparse
from decant.language import TokenBatch, TokenDataset, TokenSamples, cache_logits, tokenise
from decant.pipeline.errors import DataError
from decant.pipeline.language.alignment import require_aligned
from decant.pipeline.objectives import SparseTargets, sparse_kd
from tests.helpers import language


def agreement(batch: TokenBatch, teacher: Any) -> float:
    """How far the log-probabilities of a batch's rows are from what the teacher says of the very batch, at most."""
    with torch.inference_mode():
        live = batch.logits(teacher(**batch.inputs)).log_softmax(1)
    assert isinstance(batch.targets, SparseTargets)
    return float((live.gather(1, batch.targets.ids) - batch.targets.log_probs).abs().max())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("workers", [0, 2])
def test_shuffled_batches_have_the_rows_of_their_own_places(
    side: Any, workers: int, samples: TokenSamples, cache: LogitCache, teacher: Any
) -> None:
    train = TokenDataset(samples, cache, padding_side=side)
    loader = DataLoader(train, 7, shuffle=True, collate_fn=train.collate, num_workers=workers)
    seen = 0
    for batch in loader:
        mask = batch.inputs["attention_mask"]
        assert mask[:, -1 if side == "left" else 0].all()
        assert mask.sum() < mask.numel()
        if side == "left":
            assert torch.equal(batch.inputs["position_ids"], (mask.cumsum(1) - 1).clamp(min=0))
        flat = batch.inputs["input_ids"].flatten()
        assert torch.equal(flat[batch.places + 1], batch.labels)
        assert agreement(batch, teacher) < 0.05
        seen += len(batch.places)
    assert seen == cache.num_positions


def test_a_padding_token_that_no_network_knows_is_not_put_into_batches(tmp_path: Path, teacher: Any) -> None:
    tokenizer = language.tokenizer()
    corpus = tokenise(language.sentences(6), tokenizer, tmp_path / "texts.tokens")
    samples = TokenSamples(corpus, max_length=24)
    train = TokenDataset(samples, cache_logits(teacher, samples, tmp_path / "c.h5"))
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    batch = train.collate([train[index] for index in range(6)])
    student = language.llama(train.cache.num_outputs, seed=1)
    assert batch.logits(student(**batch.inputs)).isfinite().all()
    assert not batch.inputs["attention_mask"].all()


@pytest.mark.parametrize("across", [False, True])
def test_packed_rows_see_what_the_teacher_saw(
    across: bool, samples: TokenSamples, teacher: Any, tmp_path: Path
) -> None:
    packed = TokenSamples(samples.corpus, max_length=24, rows="packed", across=across)
    cache = cache_logits(teacher, packed, tmp_path / "c.h5", encoding=Sparse(head=16))
    train = TokenDataset(packed, cache)
    for batch in DataLoader(train, 5, shuffle=True, collate_fn=train.collate):
        assert agreement(batch, teacher) < 0.05


def test_collators_of_transformers_may_pad_on_either_side_or_not_at_all(
    samples: TokenSamples, cache: LogitCache, teacher: Any
) -> None:
    from transformers import DataCollatorForLanguageModeling, DataCollatorWithFlattening

    for side in ("left", "right"):
        tokenizer = language.tokenizer()
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, side
        train = TokenDataset(samples, cache, collator=DataCollatorForLanguageModeling(tokenizer, mlm=False))
        batch = train.collate([train[3], train[0], train[11]])
        assert batch.inputs["attention_mask"][:, 0 if side == "left" else -1].min() == 0
        assert agreement(batch, teacher) < 0.05
    flat = TokenDataset(samples, cache, collator=DataCollatorWithFlattening())
    batch = flat.collate([flat[3], flat[0], flat[11]])
    assert len(batch.inputs["input_ids"]) == 1
    with torch.inference_mode():
        live = batch.logits(teacher(**batch.inputs, use_cache=False)).log_softmax(1)
    assert isinstance(batch.targets, SparseTargets)
    assert (live.gather(1, batch.targets.ids) - batch.targets.log_probs).abs().max() < 0.05
    untold = TokenDataset(samples, cache, collator=DataCollatorWithFlattening(return_position_ids=False))
    with pytest.raises(DataError, match="put 3 samples into 1 rows without position_ids"):
        untold.collate([flat[3], flat[0], flat[11]])


def test_a_network_with_positions_of_its_own_is_told_them_where_a_collator_pads_in_front(
    samples: TokenSamples, tmp_path: Path
) -> None:
    """GPT-2 counts padding too unless `position_ids` say where a sample begins."""
    import transformers

    config = transformers.GPT2Config(vocab_size=344, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    teacher = transformers.GPT2LMHeadModel(config).eval()
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Sparse(head=16))
    tokenizer = language.tokenizer()
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    train = TokenDataset(samples, cache, collator=transformers.DataCollatorWithPadding(tokenizer))
    batch = train.collate([train[3], train[0], train[11]])
    assert not batch.inputs["attention_mask"][:, 0].all()
    assert agreement(batch, teacher) < 0.05


def test_a_student_learns_what_the_teacher_says(samples: TokenSamples, tmp_path: Path) -> None:
    teacher = language.bigram(samples, 340)
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Sparse(head=32))
    train = TokenDataset(samples, cache)
    torch.manual_seed(0)
    student = torch.nn.Sequential(torch.nn.Embedding(340, 16), torch.nn.Linear(16, 352))
    optimizer = torch.optim.Adam(student.parameters(), 0.03)
    losses = []
    for _ in range(6):
        for batch in DataLoader(train, 8, shuffle=True, collate_fn=train.collate):
            logits = batch.logits(student(batch.inputs["input_ids"]))
            loss = sparse_kd(logits, batch.targets, batch.labels, alpha=1.0).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.25 * losses[0], (losses[0], losses[-5:])


def test_with_draws_epoch_e_reads_view_e_mod_v(samples: TokenSamples, teacher: Any, tmp_path: Path) -> None:
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=Sparse(head=2, draws=6), views=2)
    train = copy.deepcopy(TokenDataset(samples, cache))
    loader = DataLoader(train, 8, collate_fn=train.collate, num_workers=1, persistent_workers=True)
    ids = []
    for epoch in range(3):
        train.set_epoch(epoch)
        ids.append(torch.cat([batch.targets.ids for batch in loader]))
    assert torch.equal(ids[0], ids[2])
    assert not torch.equal(ids[0], ids[1])
    cache.path.chmod(0o644)
    with cache.path.open("r+b") as file:
        file.seek(cache.path.stat().st_size // 2)
        file.write(bytes(200))
    with pytest.raises(CorruptError, match="was written to"):
        train.set_epoch(3)


@pytest.mark.parametrize("encoding", [Dense("float32"), "hidden"], ids=str)
def test_dense_caches_and_those_of_hidden_states_give_logits(
    encoding: Any, samples: TokenSamples, teacher: Any, tmp_path: Path
) -> None:
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=encoding)
    train = TokenDataset(samples, cache)
    assert usage.count(cache.path) == 1, "so that gc knows that it is in use"
    batch = train.collate([train[5], train[2]]).to("cpu")
    with torch.inference_mode():
        live = batch.logits(teacher(**batch.inputs))
    assert torch.allclose(live, train.teacher_logits(batch), atol=2e-4 if encoding != "hidden" else 0.1)
    loader = DataLoader(train, 8, collate_fn=train.collate, num_workers=1)
    assert sum(len(train.teacher_logits(each)) for each in loader) == cache.num_positions


def test_other_texts_tokenizers_templates_and_cuts_are_refused_before_training(
    samples: TokenSamples, cache: LogitCache, folder: Path, tokenizer: Any, teacher: Any, tmp_path: Path
) -> None:
    some = language.sentences(40)
    retrained = tokenise(some, language.tokenizer(seed=5), tmp_path / "a")
    template = tokenise(some, language.tokenizer(language.MARKED), tmp_path / "b")
    cases = [
        (TokenSamples(retrained, max_length=64), "data.tokenizer.vocabulary"),
        (TokenSamples(template, max_length=64), "data.tokenizer.chat_template"),
        (TokenSamples(samples.corpus, max_length=63), "data.samples.max_length: expected 63, found 64"),
        (TokenSamples(samples.corpus, max_length=64, truncation="left"), "data.samples.truncation"),
        (TokenSamples(samples.corpus, max_length=64, rows="packed"), "data.samples.rows"),
        (
            TokenSamples(samples.corpus, max_length=64, documents=np.arange(39)),
            "data.length: expected 39, found 40",
        ),
    ]
    for other, said in cases:
        with pytest.raises(MismatchError, match=said):
            TokenDataset(other, cache)


class Spoiling:
    """A collator that does to the first item what `spoil` does."""

    def __init__(self, spoil: Any) -> None:
        self.spoil = spoil

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        rows[0] = {"input_ids": self.spoil(rows[0]["input_ids"])}
        ids = torch.nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], True, -1)
        return {"input_ids": ids.clamp(min=0), "attention_mask": (ids >= 0).long()}


def replaced(ids: Any) -> Any:
    ids = ids.clone()
    ids[2] = 7
    return ids


SPOILT: list[tuple[Any, str]] = [
    (
        replaced,
        r"sample 3: token 2 is '.*' \(id 7\) in the batch, and the teacher read '.*' \(id \d+\); '.*' where the",
    ),
    (lambda ids: torch.cat([torch.tensor([0]), ids]), "1 token more at the beginning, as a special token"),
    (lambda ids: ids[1:], "1 token less at the beginning"),
    (lambda ids: ids[:-2], "2 tokens less at the end"),
    (lambda ids: ids.roll(1), "they are shifted by one"),
    (lambda ids: ids.flip(0), "they are in another order"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT, ids=[said[-25:] for _, said in SPOILT])
def test_tokens_that_the_teacher_did_not_read_are_named(
    spoil: Any, said: str, samples: TokenSamples, cache: LogitCache
) -> None:
    train = TokenDataset(samples, cache, collator=Spoiling(spoil))
    with pytest.raises(MismatchError, match=r"teacher\.h5: sample 3: ") as raised:
        train.collate([train[3], train[4]])
    assert re.search(said, str(raised.value)), raised.value


@pytest.mark.parametrize(
    "encoding", [Sparse(head=16), Sparse(head=4, draws=8), Sparse(head=340)], ids=["head", "draws", "all"]
)
def test_rows_that_were_written_one_place_off_are_found(
    encoding: Sparse, samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decant.pipeline.language import teacher_pass

    write = teacher_pass._write

    def roll(rows: Any) -> Any:
        return {name: np.roll(column, 1, axis=0) for name, column in rows.items()}

    def shifted(writer: Any, indices: Any, parts: Any, next_log_prob: Any, view: int) -> None:
        rolled = [partial(roll, part()) for part in parts]
        write(writer, indices, rolled, next_log_prob, view)

    monkeypatch.setattr(teacher_pass, "_write", shifted)
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=encoding)
    train = TokenDataset(samples, cache)
    with pytest.raises(MismatchError, match=r"rows are of other places, as where they are shifted by one"):
        train.collate([train[3], train[4]])


def test_a_token_outside_a_head_is_less_likely_than_all_in_it(
    samples: TokenSamples, cache: LogitCache
) -> None:
    """So a row that leaves out a token that was noted as likelier is of another place."""
    index = np.array([3])
    rows, recorded = cache.rows(index, 0), cache.next_log_prob(index, 0)
    ids, at = samples.tokens(3), samples.positions(3)
    require_aligned(cache, index, rows, ids[at + 1], recorded)
    outside = np.flatnonzero(~(rows.ids == ids[at + 1][:, None]).any(1))
    assert len(outside)
    recorded[outside[0]] = rows.log_probs[outside[0], -1] + 0.5
    with pytest.raises(MismatchError, match=f"sample 3, token {outside[0]}: .* 1 of {len(at)} are so"):
        require_aligned(cache, index, rows, ids[at + 1], recorded)


def test_a_cache_without_positions_and_other_items_are_refused(
    samples: TokenSamples, cache: LogitCache, tmp_path: Path
) -> None:
    from decant import LogitCacheWriter, Manifest

    with LogitCacheWriter(tmp_path / "whole.h5", Manifest.build(num_samples=2, num_outputs=3)) as writer:
        writer.write([0, 1], np.eye(3, dtype="f4")[:2], labels=[0, 1])
        whole = LogitCache.open(writer.publish())
    with pytest.raises(MismatchError, match=r"is a cache of whole samples"):
        TokenDataset(samples, whole)
    train = TokenDataset(samples, cache)
    with pytest.raises(TypeError, match="sparse rows have no logits of all outputs"):
        train.teacher_logits(train.collate([train[0]]))
    with pytest.raises(DataError, match="expected items of a decant"):
        train.collate([{"input_ids": torch.zeros(3)}])
    with pytest.raises(DataError, match="padding_side"):
        TokenDataset(samples, cache, padding_side="both")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="has 300 outputs, and the teacher's rows are of 340"):
        train.collate([train[0]]).logits(torch.zeros(1, int(samples.lengths[0]), 300))


def test_outputs_of_other_places_are_refused(samples: TokenSamples, cache: LogitCache) -> None:
    """As of a network that puts tokens of its own before a text, or gives the logits of the last place alone."""
    train = TokenDataset(samples, cache)
    batch = train.collate([train[0], train[1]])
    rows, length = batch.inputs["input_ids"].shape
    for places in (length + 4, 1):
        with pytest.raises(DataError, match=rf"are not of the {rows} × {length} places of the batch"):
            batch.logits(torch.zeros(rows, places, 352))


def test_what_a_collator_gives_beside_tensors_stays(samples: TokenSamples, cache: LogitCache) -> None:
    """Fast kernels for rows without padding need the longest sample of a batch."""
    from transformers import DataCollatorWithFlattening

    train = TokenDataset(samples, cache, collator=DataCollatorWithFlattening(return_flash_attn_kwargs=True))
    batch = train.collate([train[0], train[1]]).to("cpu")
    assert batch.inputs["max_length_q"] == max(samples.lengths[:2])
    assert batch.inputs["cu_seq_lens_q"].tolist() == [0, *samples.lengths[:2].cumsum()]


def test_every_token_of_a_batch_is_compared_up_to_the_last(samples: TokenSamples, cache: LogitCache) -> None:
    train = TokenDataset(samples, cache)
    for place in range(len(train[4]["input_ids"])):
        item = train[4]
        item["input_ids"] = item["input_ids"].clone()
        item["input_ids"][place] += 1
        with pytest.raises(MismatchError, match=r"in the batch, and the teacher read"):
            train.collate([train[1], item])


def test_a_row_of_draws_alone_may_leave_out_a_token_that_is_likelier_than_those_drawn() -> None:
    rows = SparseRows(
        ids=np.array([[5, 7]], np.int32),
        log_probs=np.array([[-8.0, -6.0]], np.float32),
        log_tail=np.zeros((1, 1), np.float32),
        log_sum_exp=np.zeros(1, np.float32),
        certain=np.array([0], np.int32),
    )
    require_aligned(cast(LogitCache, None), np.array([0]), rows, np.array([3]), np.array([-2.0], np.float32))
