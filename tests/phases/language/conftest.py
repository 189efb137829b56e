"""A recipe of a language model whose teacher is a folder: a small network, and a tokenizer of the tests' sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers import language

RECIPE = """
[data]
name = "tokens"
root = "texts.jsonl"
max_length = 64
validation = 0.2
test_share = 0.2

[teacher]
network = "transformers:teacher"
at_chance = "accept"

[cache]
tokens_per_batch = 256
encoding = { kind = "sparse", head = 16 }

[student]
network = { name = "cut", layers = [1] }
epochs = 1
tokens_per_batch = 512
optimizer = "adamw"
lr = 1e-3
"""


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the recipe `lm.toml` lies, with its texts and its teacher, whose head has 12 rows more than there are
    tokens.
    """
    made = tmp_path_factory.mktemp("recipe")
    language.llama(352).save_pretrained(made / "teacher")
    language.tokenizer().save_pretrained(made / "teacher")
    rows = [json.dumps({"text": text}) for text in language.sentences(120)]
    (made / "texts.jsonl").write_text("\n".join(rows))
    chats = [json.dumps(language.chat(text, text[::-1])) for text in language.sentences(30)]
    (made / "chats.jsonl").write_text("\n".join(chats))
    (made / "lm.toml").write_text(RECIPE)
    return made
