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
