"""What is measured of a student, against the same by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import LogitCache, MismatchError
from decant.encodings import Dense, Sparse
from decant.language import TokenSamples, cache_logits, measure
from tests.helpers import language


@pytest.mark.parametrize(
    "encoding", [Dense("float32"), Sparse(head=340), "hidden"], ids=["dense", "sparse", "hidden"]
)
def test_measures_are_those_by_hand(
    encoding: Any, samples: TokenSamples, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "decant.pipeline.language.causal_model._CHUNK_BYTES", 4 * 352 * 50
    )  # 50 positions at a time
    cache = cache_logits(teacher, samples, tmp_path / "c.h5", encoding=encoding)
    student = language.llama(340, seed=3).train()
    found = measure(student, samples, cache, tokens_per_batch=100, show_progress=False)
    assert student.training
    student.eval()
    losses, kls, hits, agreed, theirs_losses, confidence = [], [], [], [], [], []
    for index in range(len(samples)):
        ids = torch.from_numpy(samples.tokens(index))[None]
        with torch.inference_mode():
            ours, theirs = (
                network(input_ids=ids).logits[0, :-1, :340].double().log_softmax(1)
                for network in (student, teacher)
            )
        labels = ids[0, 1:, None]
        losses.append(-ours.gather(1, labels)[:, 0])
        theirs_losses.append(-theirs.gather(1, labels)[:, 0])
        kls.append((theirs.exp() * (theirs - ours)).sum(1))
        hits.append(ours.argmax(1) == labels[:, 0])
        confidence.append(ours.amax(1).exp())
        agreed.append(ours.argmax(1) == theirs.argmax(1))
    assert found.positions == cache.num_positions
    right, sure = torch.cat(hits).double(), torch.cat(confidence)
    bins = (sure * 15).ceil().clamp(1, 15)
    gaps = [float((right - sure)[bins == one].sum()) for one in range(1, 16)]
    expected = (
        (found.calibration_error, torch.tensor(gaps).abs().sum() / len(sure)),
        (found.perplexity, torch.cat(losses).mean().exp()),
        (found.teacher_perplexity, torch.cat(theirs_losses).mean().exp()),
        (found.kl, torch.cat(kls).mean()),
        (found.accuracy, torch.cat(hits).double().mean()),
        (found.agreement, torch.cat(agreed).double().mean()),
    )
    for ours, theirs in expected:
        assert np.isclose(ours, float(theirs), rtol=5e-3), expected


def test_the_teacher_agrees_with_itself(samples: TokenSamples, cache: LogitCache, teacher: Any) -> None:
    found = measure(teacher, samples, cache, show_progress=False)
    assert found.agreement == 1
    assert found.kl < 1e-4
    assert np.isclose(found.perplexity, found.teacher_perplexity, rtol=1e-3)


def test_a_cache_of_other_samples_is_refused(samples: TokenSamples, cache: LogitCache, teacher: Any) -> None:
    with pytest.raises(MismatchError, match="max_length"):
        measure(teacher, TokenSamples(samples.corpus, max_length=20), cache)
