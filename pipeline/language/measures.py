"""What a student says of held-out tokens, beside what its teacher said."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from decant.cache import LogitCache
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.errors import DataError
from decant.pipeline.language.tallies import tally
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.support.progress import progress


@dataclass(frozen=True)
class Measures:
    """Means over all positions of some samples."""

    positions: int
    """Q, tokens that were predicted."""
    perplexity: float
    """exp of the student's mean cross-entropy with the tokens that follow."""
    teacher_perplexity: float
    """The same of the teacher, from what the cache recorded."""
    kl: float
    """Mean KL(teacher ‖ student) at T = 1, in nats; of sparse rows a lower bound, see `SparseTargets`."""
    accuracy: float
    """At what share of the positions the student's most likely token is the one that follows."""
    agreement: float
    """At what share it is the teacher's most likely one."""
    calibration_error: float
    """How far the probability of the most likely token is from the share of hits among positions of that probability,
    in 15 bins: `decant.cache.calibration_error`."""


def measure(
    student: nn.Module,
    samples: TokenSamples,
    cache: LogitCache,
    *,
    tokens_per_batch: int = 4096,
    device: str | torch.device | None = None,
    show_progress: bool = True,
) -> Measures:
    """Runs a student in evaluation mode over the samples of a cache, and compares it with the tokens and the teacher.

    The logits of all positions never exist together; outputs beyond the teacher's C are left out. A student is measured
    on samples that neither it nor the teacher was trained on. Raises what `cache_logits` does, and MismatchError where
    the cache is of other samples.

    >>> import tempfile, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> teacher = LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes))
    >>> folder = tempfile.TemporaryDirectory()
    >>> from decant import language
    >>> corpus = language.tokenise(["a text", "and another"], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> samples = language.TokenSamples(corpus, max_length=8)
    >>> cache = language.cache_logits(teacher, samples, f"{folder.name}/teacher.h5", encoding="hidden")
    >>> found = measure(teacher, samples, cache)
    >>> found.positions, abs(found.kl) < 1e-4, found.agreement
    (13, True, 1.0)
    >>> folder.cleanup()
    """
    if tokens_per_batch < 1:
        raise DataError(f"tokens_per_batch: expected 1 or more, found {tokens_per_batch}")
    total = int(samples.lengths.sum())
    with (
        teachers.evaluating(student, teachers.device_of(student, device)),
        progress("measuring", total, silent=not show_progress) as advance,
    ):
        found = tally(student, samples, cache.num_outputs, cache, tokens_per_batch, advance)
    return Measures(
        found.count,
        found.perplexity,
        math.exp(found.teacher_loss / found.count),
        found.kl / found.count,
        found.accuracy,
        found.agreed / found.count,
        found.calibration_error,
    )
