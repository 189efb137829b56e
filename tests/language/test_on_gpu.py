"""A language model on a GPU, its pass, its measures and its training, gives what a processor gives, up to rounding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import LogitCache
from decant.encodings import Dense, Sparse
from decant.language import TokenSamples, cache_logits, measure
from decant.pipeline.config.objectives import KD
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.language import criteria
from decant.pipeline.language.blocks import computed_tokens
from decant.pipeline.language.training import CausalCall, TokenBatches
from decant.pipeline.training.loop import train
from decant.pipeline.training.token_keys import TokenKeys
from tests.helpers import language
from tests.helpers.extras import needs

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    *needs("transformers"),
]
DEVICES = ("cpu", "cuda")
ENCODINGS = {
    "dense": Dense("float32"),
    "sparse": Sparse(head=16),
    "draws": Sparse(head=8, draws=8),
    "hidden": "hidden",
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_what_is_cached_and_measured_is_that_of_a_processor(
    encoding: Any, samples: TokenSamples, tmp_path: Path
) -> None:
    caches = [
        cache_logits(
            language.llama(352),
            samples,
            tmp_path / f"{device}.h5",
            encoding=encoding,
            tokens_per_batch=100,
            device=device,
            show_progress=False,
        )
        for device in DEVICES
    ]
    every = np.arange(len(samples))
    on_cpu, on_gpu = (cache.next_log_prob(every, 0).astype("f4") for cache in caches)
    np.testing.assert_allclose(on_gpu, on_cpu, atol=2e-2)
    student = language.llama(340, seed=3)
    of_cpu, of_gpu = (
        measure(student, samples, cache, tokens_per_batch=100, device=device, show_progress=False)
        for device, cache in zip(DEVICES, caches, strict=True)
    )
    for name in ("perplexity", "teacher_perplexity", "kl", "accuracy", "agreement"):
        assert getattr(of_gpu, name) == pytest.approx(getattr(of_cpu, name), rel=2e-2, abs=1e-2), name


def losses(samples: TokenSamples, cache: LogitCache, folder: Path, device: str) -> list[float]:
    """Of each epoch of a student. Adam would make steps of what rounding leaves of a gradient of 0."""
    settings = Training(network={"name": "llama"}, epochs=3, tokens_per_batch=100, lr=0.05)
    network = language.llama(340, seed=3).to(device)
    train(
        network,
        TokenBatches(samples, cache),
        criteria.from_cache(KD(name="kd", temperature=1.0), cache),
        settings,
        folder,
        views=lambda indices, epoch: np.zeros(len(indices), np.int64),
        keys=TokenKeys(
            computed_tokens(samples),
            samples.num_positions,
            100,
            0,
            lambda indices, epoch: np.zeros(len(indices), np.int64),
        ),
        call=CausalCall(network, samples, 340),
        evaluate_on=lambda network: Metrics(),
        device=torch.device(device),
    )
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_student_learns_as_on_a_processor(samples: TokenSamples, cache: LogitCache, tmp_path: Path) -> None:
    on_cpu, on_gpu = (losses(samples, cache, tmp_path / device, device) for device in DEVICES)
    assert on_gpu == pytest.approx(on_cpu, rel=1e-2)
    assert on_cpu[-1] < on_cpu[0]
