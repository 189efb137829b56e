"""The teacher's pass: each missing row is computed once, from the batches that it always has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from decant.cache import LogitCache, LogitCacheWriter, Manifest, ValueRefusedError, input_crc32
from decant.pipeline.config.settings import CacheSettings, ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.phases.teacher_pass import fill, teacher_logits
from decant.pipeline.views import ViewedData

CPU = torch.device("cpu")
N, V = 50, 3
SETTINGS = CacheSettings(batch_size=16)


class Counting(nn.Module):
    """Two sums of an image's pixels; counts the batches, and those with their first sample."""

    def __init__(self, spoil: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.batches, self.spoil = 0, spoil

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.batches += 1
        sums = images.float().flatten(1).sum(1, keepdim=True) / 10 * self.weight
        return torch.cat([sums, -sums * (float("nan") if self.spoil and self.batches == 2 else 1)], 1)


def viewed(lazy: bool = False) -> ViewedData:
    images = np.random.default_rng(0).integers(0, 256, (N, 1, 6, 6), dtype=np.uint8)
    data = ArrayData("test", "train", images, np.arange(N) % 4, ())
    data.lazy = lazy  # type: ignore[misc]
    augment = '{"count": 3, "augment": [{"op": "pad-crop", "padding": 1}, {"op": "flip"}]}'
    return ViewedData(data, ViewsSettings.model_validate_json(augment))


def manifest() -> Manifest:
    return Manifest.build(num_samples=N, num_outputs=2, num_views=V, dtype="float32")


@pytest.mark.parametrize("lazy", [False, True])
def test_every_row_is_the_teachers_answer_to_its_view(tmp_path: Path, lazy: bool) -> None:
    data, network = viewed(lazy), Counting()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        assert fill(writer, data, network, SETTINGS, CPU) == N * V
        cache = LogitCache.open(writer.publish())
    assert network.batches == V * 4
    for view in range(V):
        inputs, labels = data.batch(np.stack([np.arange(N), np.full(N, view)], axis=1))
        assert np.array_equal(
            cache.logits(slice(None), view), teacher_logits(network, inputs, CPU, "float32")
        )
        assert cache.input_crc32[view].tolist() == [input_crc32(value) for value in inputs]
        assert np.array_equal(cache.labels, labels.numpy())


def test_what_is_written_is_not_computed_again(tmp_path: Path) -> None:
    data, network = viewed(), Counting()
    with LogitCacheWriter(tmp_path / "whole.h5", manifest()) as writer:
        fill(writer, data, network, SETTINGS, CPU)
        whole = LogitCache.open(writer.publish())
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        rows = np.arange(N)
        crc, labels = whole.input_crc32[1], whole.labels
        writer.write(rows, whole.logits(rows, 1), labels=labels, input_crc32=crc, view=1)
        few = np.arange(20)  # a batch and a part of one, from elsewhere
        other = whole.logits(few, 2) + 1
        writer.write(few, other, labels=labels[few], input_crc32=whole.input_crc32[2, few], view=2)
        missing = sum(int((~writer.is_written(view)).sum()) for view in range(V))
        assert N < missing < 3 * N
        network.batches = 0
        assert fill(writer, data, network, SETTINGS, CPU) == missing
        assert network.batches < V * 4
        cache = LogitCache.open(writer.publish())
    assert np.array_equal(cache.logits(few, 2), other)
    for view, rows in [(0, slice(None)), (1, slice(None)), (2, slice(20, None))]:
        assert np.array_equal(cache.logits(rows, view), whole.logits(rows, view))


def test_what_the_writer_refuses_is_refused_here(tmp_path: Path) -> None:
    """In the thread that puts rows away, and still in the words that it has in any."""
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        with pytest.raises(ValueRefusedError, match="sample 16, view 0"):
            fill(writer, viewed(), Counting(spoil=True), SETTINGS, CPU)
        assert not (tmp_path / "cache.h5").exists()
