"""A tagger of transformers: rows at the first pieces of words alone, joined with padded batches at their own places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from decant import LogitCache, LogitCacheWriter, Manifest, Positions, SequenceDataset
from decant.cache import MismatchError
from tests.helpers import language
from tests.helpers.extras import needs

pytestmark = needs("transformers")


def encoded(special_tokens: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tokens (L,) of sentences, and for each the length of the word that begins there; −100 where none does."""
    tokenizer, found = language.tokenizer(), []
    for sentence in language.sentences(20):
        words = sentence.split()
        batch = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        ids = [piece for pieces in batch for piece in pieces]
        tags = [
            len(word) % 5 if place == 0 else -100
            for word, pieces in zip(words, batch, strict=True)
            for place, _ in enumerate(pieces)
        ]
        around = ([1], [2], [-100]) if special_tokens else ([], [], [])
        found.append((around[0] + ids + around[1], around[2] + tags + around[2]))
    return [(torch.tensor(ids), torch.tensor(tags)) for ids, tags in found]


@pytest.fixture
def tagger() -> Any:
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=340, num_labels=5, **sizes)
    return transformers.BertForTokenClassification(config).eval()


def build(path: Path, samples: list[Any], tagger: Any) -> LogitCache:
    at = [np.flatnonzero(tags >= 0) for _, tags in samples]
    read = {
        "tokens": torch.cat([ids for ids, _ in samples]),
        "token_lengths": [len(ids) for ids, _ in samples],
    }
    positions = Positions.of(
        [len(places) for places in at], predicts="here", places=np.concatenate(at), **read
    )
    about = Manifest.build(num_samples=len(samples), num_outputs=5, positions=positions)
    with LogitCacheWriter(path, about, positions=positions) as writer, torch.inference_mode():
        for index, (ids, _) in enumerate(samples):
            writer.write([index], tagger(input_ids=ids[None]).logits[0, at[index]])
        return LogitCache.open(writer.publish())


def test_rows_of_words_meet_the_outputs_at_their_first_pieces(tmp_path: Path, tagger: Any) -> None:
    samples = encoded()
    cache = build(tmp_path / "tags.h5", samples, tagger)
    words = sum(int((tags >= 0).sum()) for _, tags in samples)
    assert cache.num_positions == words < sum(len(ids) for ids, _ in samples) - 2 * len(samples)
    train, seen = SequenceDataset(samples, cache), 0
    for batch in DataLoader(train, 6, shuffle=True, collate_fn=train.collate):
        assert batch.mask.min() == 0
        with torch.inference_mode():
            live = batch.at(tagger(input_ids=batch.inputs, attention_mask=batch.mask).logits)
        assert (live - batch.teacher_logits).abs().max() < 1e-3
        assert batch.at(batch.labels).min() >= 0
        seen += len(live)
    assert seen == words


def test_texts_without_their_special_tokens_are_refused(tmp_path: Path, tagger: Any) -> None:
    cache = build(tmp_path / "tags.h5", encoded(), tagger)
    other = SequenceDataset(encoded(special_tokens=False), cache)
    with pytest.raises(MismatchError, match=r"sample 3: token 0 is \d+, and the teacher read 1: "):
        other.collate([other[3]])
