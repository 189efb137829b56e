"""Tokenizers that need no download: a token for each byte, or a byte-level BPE that is learnt from the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional

END_OF_TEXT = "<|endoftext|>"
_BYTES = 256
_BPE = re.compile(r"bpe:([0-9]{1,7})")


def bpe_size(name: str) -> int | None:
    """The number of tokens of "bpe:SIZE"; None of another name. Raises DataError for one that has not all bytes.

    >>> bpe_size("bpe:1024"), bpe_size("bytes")
    (1024, None)
    """
    found = _BPE.fullmatch(name)
    if found is None:
        return None
    size = int(found[1])
    if size <= _BYTES:
        raise DataError(
            f"data.tokenizer {name!r}: expected more than {_BYTES + 1} tokens: a byte each, and the end of a text"
        )
    return size


def byte_tokenizer() -> Any:
    """A tokenizer of transformers with a token for each byte, and one that ends a text.

    >>> byte_tokenizer()("é")["input_ids"]
    [128, 103]
    """
    return learn_bpe((), _BYTES + 1)


def learn_bpe(texts: Iterable[str], size: int) -> Any:
    """A byte-level BPE (Sennrich, Haddow, Birch 2016; bytes as in GPT-2) of `size` tokens: every byte, the end of a
    text, and the most frequent pairs in the texts.
    """
    optional("transformers", "text", DataError)
    import tokenizers
    import transformers

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learner, eos_token=END_OF_TEXT)
