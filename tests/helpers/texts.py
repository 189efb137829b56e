"""A small set of real sentences' like: opinions made of words, with a tokenizer trained on them on the spot."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

OPENINGS = (
    "the film",
    "this book",
    "our dinner",
    "the concert last night",
    "a play i saw",
    "her new song",
    "the trip",
)
VERBS = ("was", "seemed", "turned out", "is", "felt")
GOOD = (
    "wonderful",
    "a pleasure",
    "bright and warm",
    "moving",
    "great fun",
    "well made",
    "better than i had hoped",
)
BAD = (
    "dreadful",
    "a waste of time",
    "cold and dull",
    "boring",
    "no fun",
    "badly made",
    "worse than i had feared",
)
ENDINGS = (
    "",
    "from start to end",
    "and i would say so to anybody",
    "in spite of what they wrote about it in the paper",
)
CLASSES = ("bad", "good")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of 4 to about 20 words with their class, a function of the seed."""
    random = np.random.default_rng(seed)

    def one(label: int) -> str:
        words = (OPENINGS, VERBS, (BAD, GOOD)[label], ENDINGS)
        return " ".join(str(random.choice(some)) for some in words).strip()

    labels = random.integers(0, 2, count).tolist()
    return [(one(label), CLASSES[label]) for label in labels]


def write(folder: Path, train: int = 120, test: int = 40) -> Path:
    """`train.csv` and `test.csv`."""
    for seed, (part, count) in enumerate((("train", train), ("test", test))):
        with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerows([("text", "label"), *sentences(count, seed)])
    return folder


def train_tokenizer(folder: Path, size: int = 200) -> Path:
    """A WordPiece tokenizer learnt from the training sentences, saved as the transformers library reads it."""
    import tokenizers
    import transformers

    learner = tokenizers.BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator((text for text, _ in sentences(120, 0)), vocab_size=size, show_progress=False)
    tokenizers.BertWordPieceTokenizer(learner.get_vocab()).save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    found = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
    found.save_pretrained(folder)
    return folder
