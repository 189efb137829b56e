"""A language model's student under the Trainer of transformers: memory and time of a step with and without logits of
all places.

    python -m benchmarks.trainer_memory                # both, each in a process of its own, in turn
    python -m benchmarks.trainer_memory --steps 6 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.memory import forget_peak, peak_memory

OUTPUTS, LENGTH, BATCH, WIDTH = 49_152, 256, 4, 192


def main() -> None:
    """Prints the median of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=["narrow", "whole"])
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(measure(given.way, given.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {"narrow": [], "whole": []}
    for _ in range(given.rounds):
        for way, of_way in found.items():
            words = [
                sys.executable,
                "-m",
                "benchmarks.trainer_memory",
                "--way",
                way,
                "--steps",
                str(given.steps),
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            of_way.append(json.loads(done.stdout.strip().splitlines()[-1]))
    for way, of_way in found.items():
        shown = {name: statistics.median(one[name] for one in of_way) for name in of_way[0]}
        print(f"{way}: {shown['mib']:,.0f} MiB above the start, {shown['seconds']:.3f} s of user time a step")


def measure(way: str, steps: int) -> dict[str, float]:
    """Peak memory above what the process has before it trains, and user time of a step, of one process."""
    import transformers

    from decant.encodings import Sparse
    from decant.integrations.transformers import TokenDistillationTrainer
    from decant.language import TokenDataset, TokenSamples, cache_logits, tokenise
    from decant.objectives import sparse_kd
    from tests.helpers import language

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [" ".join(language.sentences(30, seed)) for seed in range(12)]
        corpus = tokenise(texts, language.tokenizer(), folder / "texts.tokens")
        samples = TokenSamples(corpus, max_length=LENGTH, rows="packed", across=True)
        sizes = {"num_attention_heads": 4, "max_position_embeddings": LENGTH}
        teacher = language.llama(OUTPUTS, width=16, max_position_embeddings=LENGTH)
        cache = cache_logits(
            teacher, samples, folder / "t.h5", encoding=Sparse(64), num_outputs=OUTPUTS, show_progress=False
        )
        del teacher
        student = language.llama(OUTPUTS, seed=1, width=WIDTH, **sizes)
        marks: list[float] = []

        class Marks(transformers.TrainerCallback):  # type: ignore[misc]
            """Notes the user time after each step."""

            def on_step_end(self, *_: Any, **__: Any) -> None:
                marks.append(time.process_time())

        args = transformers.TrainingArguments(
            str(folder / "out"),
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            optim="sgd",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        objective: Any = sparse_kd if way == "narrow" else lambda *batch: sparse_kd(*batch)
        run = TokenDistillationTrainer(
            student,
            args,
            train_dataset=TokenDataset(samples, cache),
            objective=objective,
            callbacks=[Marks()],
        )
        before = forget_peak()
        run.train()
        grown = peak_memory() - before
    return {"mib": grown / 2**20, "seconds": (marks[-1] - marks[0]) / (steps - 1)}


if __name__ == "__main__":
    main()
