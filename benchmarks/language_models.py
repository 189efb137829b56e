"""What the rows of language models are measured with: Llamas of fresh weights, and random texts of bytes."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.conditions import Conditions, LeftOut
from decant import language
from decant.cache import CacheWarning
from decant.pipeline.corpus.made_tokenizers import byte_tokenizer

_LETTERS = 26


@dataclass(frozen=True)
class Shape:
    """How large a Llama is."""

    width: int
    layers: int
    heads: int
    groups: int
    """Of heads, that share keys and values."""
    outputs: int
    """C."""

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.width}, C = {self.outputs:,}"


SMOLLM2 = Shape(width=576, layers=30, heads=9, groups=3, outputs=49_152)
"""SmolLM2-135M."""
SMALL = Shape(width=64, layers=2, heads=4, groups=2, outputs=8_192)


def device_here() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def llama(conditions: Conditions, shape: Shape) -> Any:
    """A causal network whose logits are as far apart as those of a trained one. Raises LeftOut."""
    require_transformers()
    import transformers

    torch.manual_seed(conditions.seed)
    config = transformers.LlamaConfig(
        vocab_size=shape.outputs,
        hidden_size=shape.width,
        intermediate_size=shape.width * 8 // 3,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.groups,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=0,
    )
    network = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():  # logits of a standard deviation of 3
        network.get_output_embeddings().weight.normal_(std=3 / math.sqrt(shape.width))
    return network


def random_texts(conditions: Conditions, tokens: int, longest: int) -> language.TokenSamples:
    """About so many tokens, one for each byte, in documents of half of `longest` to it. Raises LeftOut."""
    require_transformers()
    random, texts, left = conditions.random(), list[str](), tokens
    while left > 0:
        count = int(random.integers(longest // 2, longest))
        texts.append("".join(map(chr, ord("a") + random.integers(0, _LETTERS, count))))
        left -= count + 1
    corpus = language.tokenise(texts, byte_tokenizer(), conditions.folder / f"tokens-{tokens}-{longest}.h5")
    return language.TokenSamples(corpus, max_length=longest)


@contextmanager
def untrained() -> Iterator[None]:
    """Says nothing of a teacher that was never trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        yield


def require_transformers() -> None:
    """Raises LeftOut where transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise LeftOut("transformers: not installed; run: pip install --editable '.[text]'")
