"""What is done on a GPU alone gives what a processor gives: views to the byte, the rest to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2 as transforms

import decant
from decant.cache import LogitCache, LogitCacheWriter, Manifest, SoftLabelDataset
from decant.pipeline import objectives
from decant.pipeline.config.objectives import BUILTIN, KD, name_of
from decant.pipeline.config.settings import CacheSettings, Training, ViewsSettings
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases.teacher_pass import fill
from decant.pipeline.training import recorded
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.loop import train
from decant.pipeline.training.on_device import (
    DeviceData,
    DeviceViews,
    device_views,
    fits_on_device,
    held_views,
)
from decant.pipeline.training.several import train_together
from decant.pipeline.views import ViewedData
from tests.helpers.small import CPU

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
GPU = torch.device("cuda")
N, C, V, BATCH = 200, 5, 2, 32
AUGMENT = ({"op": "pad-crop", "padding": 2}, {"op": "flip"}, {"op": "color-jitter"})
ONE_TEACHER = [name_of(kind) for kind in BUILTIN if name_of(kind) not in ("general", "regression")]


@pytest.fixture(scope="module")
def viewed() -> ViewedData:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 16, 16), dtype=np.uint8)
    settings = ViewsSettings.model_validate({"augment": AUGMENT, "count": V})
    return ViewedData(ArrayData("test", "train", images, np.arange(N) % C, tuple("abcde")), settings)


def cached(viewed: ViewedData, folder: Path, network: str, device: torch.device) -> LogitCache:
    """The teacher's pass on a device."""
    manifest = Manifest.build(num_samples=N, num_outputs=C, num_views=V, dtype="float32")
    teacher = build_network(specify_network(Training(network=network, epochs=1).network, viewed), seed=3)
    with LogitCacheWriter(folder / f"{device.type}.h5", manifest) as writer:
        assert fill(writer, viewed, teacher, CacheSettings(batch_size=BATCH), device, True) == N * V
        return LogitCache.open(writer.publish())


@pytest.fixture(scope="module")
def cache(viewed: ViewedData, tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return cached(viewed, tmp_path_factory.mktemp("cache"), "conv", CPU)


@pytest.mark.parametrize("network", ["conv", "resnet8", "torchvision:shufflenet_v2_x0_5"])
def test_a_pass_over_the_data_is_that_of_a_processor(
    viewed: ViewedData, tmp_path: Path, network: str, count_recordings: list[int]
) -> None:
    on_cpu, on_gpu = (cached(viewed, tmp_path, network, device) for device in (CPU, GPU))
    assert len(count_recordings) == 1
    assert np.array_equal(on_gpu.input_crc32[:], on_cpu.input_crc32[:])
    assert np.array_equal(on_gpu.labels[:], on_cpu.labels[:])
    for view in range(V):
        expected = on_cpu.logits(slice(None), view)
        close = 2e-3 * np.abs(expected).max()  # a GPU multiplies in TF32 where torch lets it
        np.testing.assert_allclose(on_gpu.logits(slice(None), view), expected, atol=close)


def test_views_are_the_same_bytes(viewed: ViewedData, cache: LogitCache) -> None:
    assert isinstance(device_views(viewed, GPU), DeviceViews)
    assert fits_on_device(SoftLabelDataset(viewed, cache), GPU)
    keys = np.stack([np.arange(N), np.arange(N) % V], axis=1)
    resident = DeviceData(SoftLabelDataset(viewed, cache), GPU)
    for ours, theirs in zip(resident.batch(keys), SoftLabelDataset(viewed, cache).batch(keys), strict=True):
        assert ours.device.type == "cuda"
        assert torch.equal(ours.cpu(), theirs)
    runs = [keys[:50], keys[50:51], keys[51:]]
    for run, made in zip(runs, resident.batches(runs), strict=True):
        for ours, theirs in zip(made, SoftLabelDataset(viewed, cache).batch(run), strict=True):
            assert torch.equal(ours.cpu(), theirs)


def test_a_network_is_measured_on_what_the_device_keeps(viewed: ViewedData) -> None:
    chosen = Training(network="conv", epochs=1)
    network = build_network(specify_network(chosen.network, viewed), seed=3)
    on_cpu = predict(network, viewed, CPU)
    assert isinstance(held_views(viewed, GPU), DeviceViews)
    close = 2e-3 * float(on_cpu.abs().max())
    for _ in range(2):
        torch.testing.assert_close(predict(network.to(GPU), viewed, GPU), on_cpu, rtol=0, atol=close)


def evaluate_on(network: nn.Module) -> Metrics:
    network.eval()
    return Metrics()


def student(
    data: Any, viewed: ViewedData, folder: Path, criterion: Callable[..., Any], record: bool, **settings: Any
) -> dict[str, Tensor]:
    chosen = Training(**{"network": "conv", "epochs": 3, "batch_size": BATCH, "lr": 0.02, **settings})
    network = build_network(specify_network(chosen.network, viewed), chosen.seed)
    train(
        network, data, criterion, chosen, folder,
        views=viewed.cached_views, evaluate_on=evaluate_on, device=GPU, steps_alike=record,
    )  # fmt: skip
    return {name: value.cpu() for name, value in network.state_dict().items()}


@pytest.fixture
def count_recordings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made, record = list[int](), recorded.record_cuda_graph

    def counted(work: Callable[[], Any]) -> Any:
        made.append(1)
        return record(work)

    monkeypatch.setattr(recorded, "record_cuda_graph", counted)
    return made


def require_close(found: dict[str, Tensor], plain: dict[str, Tensor], again: dict[str, Tensor]) -> None:
    """As near to `plain` as `again` is, which was trained the same way; and of as many batches."""
    for name, value in plain.items():
        if value.is_floating_point():
            noise = float((again[name] - value).abs().max())
            scale = float(value.abs().max())
            assert float((found[name] - value).abs().max()) <= 10 * noise + 1e-3 * scale, name
        else:
            assert torch.equal(found[name], value), name


def compare(
    data: Any, viewed: ViewedData, folder: Path, criterion: Callable[..., Any], **settings: Any
) -> None:
    """A recorded training run against one that is not, and how far two of those are from each other."""
    plain, again, found = (
        student(data, viewed, folder / name, criterion, name == "recorded", **settings)
        for name in ("plain", "again", "recorded")
    )
    require_close(found, plain, again)


@pytest.mark.parametrize("name", ONE_TEACHER)
def test_a_recorded_student_is_the_same_whatever_it_learns_by(
    viewed: ViewedData, cache: LogitCache, tmp_path: Path, name: str, count_recordings: list[int]
) -> None:
    kind = next(kind for kind in BUILTIN if name_of(kind) == name)
    criterion = objectives.from_cache(kind.model_validate({"name": name}))
    data = DeviceData(SoftLabelDataset(viewed, cache), GPU)
    compare(data, viewed, tmp_path, criterion)
    assert len(count_recordings) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"optimizer": "adamw", "lr": 0.0001, "epochs": 1},
        {"clip_norm": 0.1, "nesterov": True},
        {"network": "resnet8"},
        {"network": "torchvision:shufflenet_v2_x0_5", "lr": 0.0001, "epochs": 1},
        {"network": "conv", "freeze": "body.0"},
    ],
    ids=str,
)
def test_a_recorded_student_is_the_same_however_it_is_trained(
    viewed: ViewedData,
    cache: LogitCache,
    tmp_path: Path,
    settings: dict[str, Any],
    count_recordings: list[int],
) -> None:
    data = DeviceData(SoftLabelDataset(viewed, cache), GPU).views
    compare(data, viewed, tmp_path, objectives.from_labels(), **settings)
    assert len(count_recordings) == 1


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_students_in_one_loop_are_those_that_are_trained_alone(
    viewed: ViewedData, cache: LogitCache, tmp_path: Path, network: str, count_recordings: list[int]
) -> None:
    """Their running statistics too, which a step that was made twice would change twice."""
    data, criterion = DeviceData(SoftLabelDataset(viewed, cache), GPU), objectives.from_cache(KD(name="kd"))
    given: dict[str, Any] = {"network": network, "epochs": 3, "batch_size": BATCH, "lr": 0.02}
    learners = [
        Learner(
            build_network(specify_network(chosen.network, viewed), seed), chosen, tmp_path / f"together-{seed}",
            evaluate_on=evaluate_on, device=GPU,
        )
        for seed in range(3)
        for chosen in [Training(**given, seed=seed)]
    ]  # fmt: skip
    assert not train_together(
        learners, data, criterion, views=viewed.cached_views, device=GPU, steps_alike=True
    )
    assert len(count_recordings) == 1
    for seed, learner in enumerate(learners):
        learner.finish()
        plain, again = (
            student(data, viewed, tmp_path / f"{name}-{seed}", criterion, True, **given, seed=seed)
            for name in ("plain", "again")
        )
        require_close(
            {name: value.cpu() for name, value in learner.network.state_dict().items()}, plain, again
        )


def test_a_recording_is_made_whatever_becomes_garbage_meanwhile() -> None:
    """As the recording of a network that is finished."""
    left: list[Any] = [recorded.record_cuda_graph(lambda: torch.ones(2, device=GPU))]
    left.append(left)
    del left

    def work() -> Tensor:
        for _ in range(100_000):
            cycle: list[Any] = []
            cycle.append(cycle)
        return torch.full((2,), 3.0, device=GPU)

    result, replay = recorded.record_cuda_graph(work)
    replay()
    assert result.tolist() == [3.0, 3.0]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here")
def test_a_pass_on_another_gpu_than_the_current_one_waits_for_that(
    viewed: ViewedData, tmp_path: Path
) -> None:
    on_cpu, on_gpu = (cached(viewed, tmp_path, "conv", device) for device in (CPU, torch.device("cuda", 1)))
    for view in range(V):
        expected = on_cpu.logits(slice(None), view)
        close = 2e-3 * np.abs(expected).max()
        np.testing.assert_allclose(on_gpu.logits(slice(None), view), expected, atol=close)


def test_a_recorded_student_goes_on_from_a_checkpoint(
    viewed: ViewedData, cache: LogitCache, tmp_path: Path
) -> None:
    data, criterion = DeviceViews(viewed, GPU), objectives.from_labels()
    whole = student(data, viewed, tmp_path / "whole", criterion, True)
    student(data, viewed, tmp_path / "part", criterion, True, epochs=3, evaluate_every=1)
    resumed = student(data, viewed, tmp_path / "part", criterion, True)  # finds its last epoch
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_logits_of_a_loop_of_ones_own_are_those_of_a_processor(tmp_path: Path, precision: Any) -> None:
    """And the teacher comes back to where it was, in the mode that it had."""
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    dataset = TensorDataset(images, torch.arange(60) % C)
    views = decant.Views(dataset, transforms.RandomCrop(16, padding=2), count=V, seed=0)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, C)).train()
    on_cpu, on_gpu = (
        decant.cache_logits(
            teacher, views, tmp_path / f"{device}.h5", batch_size=16, device=device, precision=precision
        )
        for device in ("cpu", "cuda")
    )
    assert next(teacher.parameters()).device == CPU
    assert teacher.training
    assert np.array_equal(on_gpu.input_crc32[:], on_cpu.input_crc32[:])
    for view in range(V):
        expected = on_cpu.logits(slice(None), view).astype("f4")
        close = (2e-2 if precision == "bfloat16" else 2e-3) * np.abs(expected).max()
        np.testing.assert_allclose(on_gpu.logits(slice(None), view).astype("f4"), expected, atol=close)
    train = decant.SoftLabelDataset(views, on_gpu)
    loader = DataLoader(train, batch_size=10, shuffle=True, pin_memory=True)
    for epoch in range(V):
        train.set_epoch(epoch)
        for inputs, labels, teacher_logits in loader:
            student_logits = teacher.to(GPU)(inputs.to(GPU))
            loss = decant.objectives.kd(student_logits, teacher_logits.to(GPU), labels.to(GPU)).total
            assert torch.isfinite(loss)
