"""The teacher's pass: each missing row is computed once, from the batches that it always has."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from decant.cache import LogitCache, LogitCacheWriter, Manifest, Sparse, ValueRefusedError, input_crc32
from decant.pipeline.config.settings import CacheSettings, ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases import teacher_pass
from decant.pipeline.phases.teacher_pass import fill, teacher_logits
from decant.pipeline.training import on_device
from decant.pipeline.views import ViewedData
from tests.helpers.freed_memory import given_back
from tests.helpers.recording import OnTheProcessor

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


class Wide(nn.Module):
    """Twenty sums of an image's pixels, none of which is much larger than the others."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(36, 20, generator=random) / 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().flatten(1) @ self.weight


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
        assert network.batches == 4 + 3, "of view 1 none, of view 2 all but the first"
        cache = LogitCache.open(writer.publish())
    assert np.array_equal(cache.logits(few, 2), other)
    for view, rows in [(0, slice(None)), (1, slice(None)), (2, slice(20, None))]:
        assert np.array_equal(cache.logits(rows, view), whole.logits(rows, view))


@pytest.mark.parametrize("at_once", [2, 100])
def test_batches_made_at_once_as_on_a_gpu_end_in_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Also those of which rows are there: the network still has its batches, one after the other."""
    data, seen = viewed(), list[list[int]]()
    contents = []
    for name in ("alone", "at once"):
        if name == "at once":
            monkeypatch.setattr(on_device, "_has_room", lambda *of: True)
            monkeypatch.setattr(teacher_pass, "_batches_at_once", lambda *of: at_once)
        network = Counting()
        network.register_forward_pre_hook(lambda _, given: seen[-1].append(len(given[0])))
        seen.append([])
        with LogitCacheWriter(tmp_path / f"{name}.h5", manifest()) as writer:
            inputs, _ = data.batch(np.stack([few := np.arange(18, 40), np.ones_like(few)], axis=1))
            logits = teacher_logits(Counting(), inputs, CPU, "float32")
            writer.write(few, logits, labels=data.data.labels[few], inputs=inputs, view=1)
            assert fill(writer, data, network, SETTINGS, CPU) == N * V - len(few)
            contents.append(writer.publish().read_bytes())
    assert contents[0] == contents[1]
    assert seen[0] == seen[1] == [16, 16, 16, 2] * V


def test_rows_that_are_encoded_where_they_are_computed_are_of_their_own_samples_and_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU does; what is drawn differs from view to view."""
    encoding = Sparse(head=2, draws=6)
    of = Manifest.build(num_samples=N, num_outputs=20, num_views=V, encoding=encoding)
    teacher, found = Wide(), list[list[bytes]]()
    for there in (False, True):
        monkeypatch.setattr(teacher_pass, "encodes_on", lambda device, there=there: there)
        with LogitCacheWriter(tmp_path / f"{there}.h5", of) as writer:
            fill(writer, viewed(), teacher, SETTINGS, CPU)
            cache = LogitCache.open(writer.publish())
        found.append([cache.encoded(slice(None), view)["ids"].tobytes() for view in range(V)])
    assert found[0] == found[1]
    assert len(set(found[0])) == V


def test_several_batches_at_once_are_recorded_as_one_is() -> None:
    recorder = OnTheProcessor()
    recorded = teacher_pass._Teacher(Counting(), CPU, SETTINGS, True, recorder)
    plain = teacher_pass._Teacher(Counting(), CPU, SETTINGS, False)
    for seed in range(3):
        images = torch.rand(16 * 5 + 3, 1, 6, 6, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():  # as the stand-in writes into results
            found = recorded(images)
        assert torch.equal(found, plain(images))
        assert torch.equal(found, torch.cat([plain(part) for part in images.split(16)]))
    assert recorder.recordings == 1


def test_blocks_are_whole_in_what_is_written_at_once_where_that_fits() -> None:
    def at_once(batch_size: int, input_bytes: int, **of: Any) -> int:
        return teacher_pass._batches_at_once(Manifest.build(num_samples=N, **of), batch_size, input_bytes)

    assert at_once(256, 3 * 32 * 32, num_outputs=10) == 8, "a block has 2,048 rows"
    assert at_once(256, 3 * 32 * 32, num_outputs=1000) == 4, "and 32"
    assert at_once(256, 3 * 224 * 224, num_outputs=1000) == 1
    assert at_once(300, 3 * 32 * 32, num_outputs=10) == 8, "no number of them that fits is of whole blocks"


def test_what_the_writer_refuses_is_refused_here(tmp_path: Path) -> None:
    """In the thread that puts rows away, and still in the words that it has in any."""
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        with pytest.raises(ValueRefusedError, match="sample 16, view 0"):
            fill(writer, viewed(), Counting(spoil=True), SETTINGS, CPU)
        assert not (tmp_path / "cache.h5").exists()


def test_images_are_brought_to_channels_last_for_filters_alone() -> None:
    """Which an mlp would bring them back from. Its answers are the same to the last bit."""
    images, seen = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8), list[bool]()
    for name, expected in [("mlp", False), ("linear", False), ("conv", True)]:
        network = build_network(NetworkSpec(name, {}, 4, (3, 12, 12), mean=(0.5,) * 3, std=(0.25,) * 3))
        network.register_forward_pre_hook(
            lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
        )
        found = teacher_logits(network, images, CPU, "float32")
        assert seen.pop() == expected, name
        with torch.inference_mode():
            other = network(images.contiguous(memory_format=torch.channels_last)).numpy()
        assert np.array_equal(found, other), name


def test_memory_that_a_batch_has_freed_serves_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few pages are new to the process, where layers give more than the allocator keeps by itself. Some may be: what is
    kept from one batch to the next may lie between the pieces.
    """
    given_back(monkeypatch)
    faults = list[int]()

    class Layers(Counting):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            kept = [torch.ones(4 << 20) for _ in range(6)]
            del kept
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            return super().forward(images)

    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        fill(writer, viewed(), Layers(), SETTINGS, CPU)
    assert sorted(faults)[len(faults) // 2] < 24_576 / 2, f"{faults} pages of 4 KiB, of 24,576"
