"""A tokenizer with a chat template, learnt from the tests' own sentences, and tiny causal networks."""

from __future__ import annotations

import functools
from typing import Any

from tests.helpers import texts

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|{{ message.role }}|>{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}<|end|>{% endgeneration %}{% else %}{{ message.content }}<|end|>{% endif %}{% endfor %}"
)


@functools.cache
def _learnt(size: int, seed: int) -> str:
    import tokenizers

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(sentences(120, seed), trainer)
    return str(learner.to_str())


def tokenizer(template: str | None = TEMPLATE, size: int = 340, seed: int = 0) -> Any:
    """A byte-level BPE of `size` tokens without a padding token; <|end|> ends a text."""
    import tokenizers
    import transformers

    learnt = tokenizers.Tokenizer.from_str(_learnt(size, seed))
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=learnt, eos_token="<|end|>")
    found.chat_template = template
    return found


def sentences(count: int, seed: int = 1) -> list[str]:
    """Texts of 4 to about 20 words."""
    return [text for text, _ in texts.sentences(count, seed)]


def chat(*contents: str) -> dict[str, Any]:
    """A row with messages of user and assistant in turn."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]}


def llama(vocabulary: int, seed: int = 0, width: int = 32, **settings: Any) -> Any:
    """A small Llama with fresh weights, in evaluation mode, whose logits are far from uniform."""
    import torch
    import transformers

    torch.manual_seed(seed)
    sizes = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
    }
    tokens = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": 0, "max_position_embeddings": 128}
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        **{**sizes, **tokens, **settings},
    )
    network = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(20)
    return network


def bigram(samples: Any, vocabulary: int, shift: int = 1) -> Any:
    """A trained network: what follows each token in the samples, by counting. With `shift` 0 it predicts the token
    itself, as one whose outputs are shifted by one.
    """
    import torch

    counts = torch.full((vocabulary, vocabulary), 0.01)
    for index in range(len(samples)):
        ids = torch.from_numpy(samples.tokens(index))
        counts.index_put_(
            (ids[: len(ids) - shift], ids[shift:]), torch.ones(len(ids) - shift), accumulate=True
        )

    class Bigram(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding.from_pretrained(counts.log())

        def forward(self, input_ids: Any) -> Any:
            return self.table(input_ids)

    return Bigram()
