"""Batches that are made on the device are, byte for byte, those that are made from array and file."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from decant.cache import (
    CorruptError,
    Ensemble,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    SoftLabelDataset,
    input_crc32,
)
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import DataError, DeviceError
from decant.pipeline.training import batch_runs, loading, on_device
from decant.pipeline.training.device import OnHost, pick_device, to_device
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.on_device import (
    DeviceData,
    DeviceViews,
    device_views,
    fits_on_device,
    held_views,
)
from decant.pipeline.views import ViewedData, geometry

CPU = torch.device("cpu")
N, C, V = 60, 5, 3
PLAIN = [{"op": "pad-crop", "padding": 2}, {"op": "flip"}]
LISTS: list[list[dict[str, Any]]] = [
    PLAIN,
    [{"op": "random-resized-crop", "size": 6}, {"op": "color-jitter"}, {"op": "cutout", "size": 3}],
    [{"op": "center-crop", "size": 7}, {"op": "random-erasing", "p": 0.7}, {"op": "mixup"}, {"op": "cutmix"}],
    [{"op": "flip"}, {"op": "rand-augment"}],
]


def viewed(augment: list[dict[str, Any]], count: int | str = V) -> ViewedData:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 9, 8), dtype=np.uint8)
    settings = ViewsSettings.model_validate_json(json.dumps({"augment": augment, "count": count}))
    return ViewedData(ArrayData("test", "train", images, np.arange(N) % C, ()), settings)


def cached(folder: Path, data: ViewedData, dtype: str = "float16", teacher: str = "one") -> LogitCache:
    views = data.settings.num_views
    of = Manifest.build(num_samples=N, num_outputs=C, num_views=views, dtype=dtype, teacher={"name": teacher})
    with LogitCacheWriter(folder / f"{teacher}.h5", of) as writer:
        for view in range(views):
            inputs, _ = data.batch(np.stack([np.arange(N), np.full(N, view)], axis=1))
            logits = np.random.default_rng([view, len(teacher)]).normal(size=(N, C))
            crc = [input_crc32(value) for value in inputs]
            writer.write(np.arange(N), logits, labels=data.data.labels, input_crc32=crc, view=view)
        return LogitCache.open(writer.publish())


def keys(views: int = V) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(1)
    return np.stack([random.integers(0, N, 100), random.integers(0, views, 100)], axis=1)


@pytest.mark.parametrize("augment", LISTS, ids=lambda augment: augment[-1]["op"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_batch_is_the_same_bytes(tmp_path: Path, augment: list[dict[str, Any]], dtype: str) -> None:
    data = viewed(augment)
    labelled = SoftLabelDataset(data, cached(tmp_path, data, dtype), compare_labels=not data.mixes_labels)
    resident = DeviceData(labelled, CPU)
    assert len(resident) == len(labelled)
    for ours, theirs in zip(resident.batch(keys()), labelled.batch(keys()), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    assert resident.batch(keys())[0].is_contiguous()


def test_several_batches_are_the_same_bytes_and_compared_by_the_same_inputs(tmp_path: Path) -> None:
    data = viewed(PLAIN)
    cache = cached(tmp_path, data)
    resident = DeviceData(SoftLabelDataset(data, cache), CPU)
    runs = [keys()[:40], keys()[40:41], keys()[41:]]
    for each, made, inputs in zip(runs, resident.batches(runs), resident.views.batches(runs), strict=True):
        for ours, theirs in zip(resident.batch(each), made, strict=True):
            assert torch.equal(ours, theirs)
        assert all(map(torch.equal, inputs, made[:2]))
    none = keys()[:0]
    for some in ([none], [runs[0], none], [none, runs[0]]):
        assert [len(made) for made, *_ in resident.batches(some)] == list(map(len, some)), (
            "as any other dataset"
        )
    assert [len(part) for part in resident.batch(none)] == [0, 0, 0]
    (changed,) = keys()[40, :1]
    data.data.inputs[changed] ^= 1  # type: ignore[attr-defined]
    others = [run[run[:, 0] != changed] for run in runs]
    resident.batches([others[0], np.concatenate([others[2][:1], keys()[40:41]])])  # not the first of a batch
    with pytest.raises(MismatchError, match=f"sample {changed}, view"):
        resident.batches([others[0], runs[1], others[2]])


@pytest.mark.parametrize(("most", "expected"), [(on_device.BYTES_AT_ONCE, [5]), (1, []), (8_000, [3, 2])])
def test_so_many_bytes_of_batches_are_made_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, expected: list[int]
) -> None:
    """More than of batches that a processor makes: the first shows their size, 2,680 bytes of 10 samples."""
    data, made, several = viewed(PLAIN), list[int](), DeviceData.batches

    def counted(self: DeviceData, keys: Any) -> Any:
        made.append(len(keys))
        return several(self, keys)

    monkeypatch.setattr(loading, "BYTES_AT_ONCE", most)
    monkeypatch.setattr(batch_runs, "MOST_BYTES", 1)
    monkeypatch.setattr(DeviceData, "batches", counted)
    resident = DeviceData(SoftLabelDataset(data, cached(tmp_path, data)), CPU)
    order = loading.OrderedKeys(N, 10)
    assert [len(labels) for _, labels, _ in loading.loader(resident, order)] == [10] * 6
    assert made == expected


def test_every_outcome_and_several_teachers_are_the_same_too(tmp_path: Path) -> None:
    data = viewed(PLAIN, "all")
    caches = [cached(tmp_path, data, teacher=name) for name in ("one", "three")]
    for mean in ("probabilities", "separate"):
        labelled = SoftLabelDataset(data, Ensemble(caches, mean, temperature=2.0))  # type: ignore[arg-type]
        resident = DeviceData(labelled, CPU)
        for ours, theirs in zip(resident.batch(keys(50)), labelled.batch(keys(50)), strict=True):
            assert torch.equal(ours, theirs)


def test_what_the_teacher_did_not_see_is_noticed(tmp_path: Path) -> None:
    data = viewed(PLAIN)
    cache = cached(tmp_path, data)
    resident = DeviceData(SoftLabelDataset(data, cache), CPU)
    resident.batch(keys())
    relabelled = viewed(PLAIN)
    relabelled.data.labels[41] = 0 if relabelled.data.labels[41] else 1
    with pytest.raises(MismatchError, match="sample 41: its label"):
        DeviceData(SoftLabelDataset(relabelled, cache), CPU)
    data.data.inputs[:] ^= 1  # type: ignore[attr-defined]
    with pytest.raises(MismatchError, match="not what the teacher saw"):
        resident.batch(keys())


def test_every_input_is_checked_where_that_is_asked_for(tmp_path: Path) -> None:
    data = viewed(PLAIN)
    cache = cached(tmp_path, data)
    sampled, whole = (
        DeviceData(SoftLabelDataset(data, cache, check_inputs=check), CPU)  # type: ignore[arg-type]
        for check in ("sample", "all")
    )
    changed = keys()[-1, 0]
    data.data.inputs[changed] ^= 1  # type: ignore[attr-defined]
    others_first = keys()[keys()[:, 0] != changed]
    batch = np.concatenate([others_first, keys()[-1:]])
    sampled.batch(batch)
    with pytest.raises(MismatchError, match=f"sample {changed}, view"):
        whole.batch(batch)


def test_a_device_that_makes_other_views_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = viewed(PLAIN)
    labelled = SoftLabelDataset(data, cached(tmp_path, data))
    flip = geometry.flip

    def other(images: Any, mirrored: Any) -> Any:
        return flip(images, ~mirrored if isinstance(images, torch.Tensor) else mirrored)

    monkeypatch.setattr(geometry, "flip", other)
    with pytest.raises(DataError, match=r"cpu makes other views .* set cache.table = \"mapped\""):
        DeviceData(labelled, CPU)
    monkeypatch.setattr(on_device, "_has_room", lambda *of: True)
    assert device_views(data, CPU) is data, "where no setting chooses a device, its views are not used"


def test_a_network_is_measured_on_views_that_the_device_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    data, network = (
        viewed([{"op": "center-crop", "size": 7}]),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 7 * 7, C)),
    )
    network[0].register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
    expected, made, init = predict(network, data, CPU, batch_size=7), list[int](), DeviceViews.__init__

    def counted(self: DeviceViews, *given: Any) -> None:
        made.append(1)
        init(self, *given)

    monkeypatch.setattr(DeviceViews, "__init__", counted)
    monkeypatch.setattr(on_device, "_has_room", lambda *of: True)
    for _ in range(2):
        assert torch.equal(predict(network, data, CPU, batch_size=7), expected)
    assert len(made) == 1
    held = weakref.ref(held_views(data, CPU))
    del data
    gc.collect()
    assert held() is None, "they are freed with the data"


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    data = viewed(PLAIN)
    path = cached(tmp_path, data).path
    content = bytearray(path.read_bytes())
    rows = LogitCache.open(path).logits(slice(None), 2).tobytes()
    content[content.find(rows)] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="view 2"):
        DeviceData(SoftLabelDataset(data, LogitCache.open(path)), CPU)


def test_only_an_array_can_move_and_only_a_gpu_is_worth_it(tmp_path: Path) -> None:
    data = viewed(PLAIN)
    labelled = SoftLabelDataset(data, cached(tmp_path, data))
    assert not fits_on_device(labelled, CPU)
    with pytest.raises(TypeError, match="an array through its views"):
        DeviceData(SoftLabelDataset([(0, 0)] * N, labelled.cache), CPU)  # type: ignore[arg-type]


# Inputs on their way to a device


def test_values_stay_what_they_are() -> None:
    for inputs in (torch.arange(12).view(3, 4), torch.rand(2, 3, 4, 5), torch.rand(2, 3, 4)):
        for channels_last in (False, True):
            assert torch.equal(to_device(inputs, CPU, channels_last), inputs)


def test_images_alone_have_their_channels_last_and_only_if_asked() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert to_device(images, CPU, channels_last=True).is_contiguous(memory_format=torch.channels_last)
    assert to_device(images, CPU).is_contiguous()
    assert to_device(images[0], CPU, channels_last=True).is_contiguous()


@pytest.mark.parametrize(
    "shape", [(5, 3, 8, 6), (1, 3, 8, 6), (2, 3, 1, 1), (2, 3, 1, 6), (5, 1, 8, 6), (0, 3, 8, 6)]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_images_are_those_that_pytorch_makes_channels_last(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    images = (255 * torch.rand(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    for given in (images, images.contiguous(memory_format=torch.channels_last), images[::2]):
        found = to_device(given, CPU, channels_last=True)
        expected = given.contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, expected)
        assert found.stride() == expected.stride()


def test_a_dictionary_is_moved_name_by_name() -> None:
    inputs = {"input_ids": torch.arange(6).view(2, 3), "attention_mask": torch.ones(2, 3)}
    moved = to_device(inputs, torch.device("meta"), channels_last=True)
    assert list(moved) == ["input_ids", "attention_mask"]
    assert {value.device.type for value in moved.values()} == {"meta"}
    assert torch.equal(to_device(inputs, CPU)["input_ids"], inputs["input_ids"])


def test_a_device_can_be_named() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_said(name: str) -> None:
    with pytest.raises(DeviceError, match=f"--device {name}: cannot be used here"):
        pick_device(name)


def test_a_device_that_pytorch_does_not_know_is_said_in_few_words() -> None:
    with pytest.raises(
        DeviceError, match=r"\(PyTorch knows no such device; a GPU is cuda, or mps on a Mac\)"
    ):
        pick_device("gpu")


def test_a_copy_to_the_host_needs_nothing_of_cuda_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyTorch looks for streams in `torch.mps`, which has none."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    values = torch.arange(3)
    for computed in (False, True):
        assert OnHost(values, computed).wait() is values
        assert OnHost({"ids": values}, computed).wait() == {"ids": values}
