"""View v of sample i is a pure function of (seed, i, v): alone, in any batch, in any process, for ever."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from decant.pipeline.config.augmentations import Augmentation, Flip, PadCrop
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import DataError
from decant.pipeline.training.loading import Keys, OrderedKeys, loader
from decant.pipeline.views import ViewedData, dataset, mixing
from decant.pipeline.views.hashing import choices
from tests.helpers.pixels import longhand_choices

BOTH: tuple[Augmentation, ...] = (PadCrop(op="pad-crop", padding=3), Flip(op="flip"))


def images(count: int = 60, shape: tuple[int, ...] = (3, 9, 7), dtype: str = "uint8") -> NDArray[Any]:
    drawn = np.random.default_rng(0).integers(1, 256, (count, *shape))
    return (drawn / 255).astype("float32") if dtype == "float32" else drawn.astype("uint8")


def viewed(*operations: Augmentation, seed: int = 0, inputs: NDArray[Any] | None = None) -> ViewedData:
    inputs = images() if inputs is None else inputs
    data = ArrayData("test", "train", inputs, np.arange(len(inputs)) % 10, ())
    return ViewedData(data, ViewsSettings(seed=seed, augment=operations, count=5 if operations else 1))


def every_key(count: int = 60, views: int = 3) -> Keys:
    return np.stack([np.tile(np.arange(count), views), np.repeat(np.arange(views), count)], axis=1)


# The same pixels, however they are asked for


@pytest.mark.parametrize("batch_size", [7, 256])
@pytest.mark.parametrize(
    "inputs", [images(), images(dtype="float32"), images(shape=(1, 1, 1)), images(shape=(5, 2, 31))]
)
def test_a_view_in_a_batch_is_the_view_alone(batch_size: int, inputs: NDArray[Any]) -> None:
    data, keys = viewed(*BOTH, inputs=inputs), np.random.default_rng(1).permutation(every_key())
    for start in range(0, len(keys), batch_size):
        batch = keys[start : start + batch_size]
        found, labels = data.batch(batch)
        for place, (index, view) in enumerate(batch.tolist()):
            alone, label = data[index, view]
            assert torch.equal(found[place], alone), f"sample {index}, view {view}"
            assert labels[place] == label == index % 10
        assert found.dtype == torch.from_numpy(inputs).dtype


def test_a_sample_without_a_view_is_its_first_and_may_be_counted_from_the_end() -> None:
    data = viewed(*BOTH)
    assert torch.equal(data[7][0], data[7, 0][0])
    assert torch.equal(data[-1, 2][0], data[59, 2][0])
    with pytest.raises(IndexError):
        data[60]


@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (2, "fork")])
def test_workers_see_the_same_pixels(workers: int, start: str | None) -> None:
    data, keys = viewed(*BOTH), OrderedKeys(60, 25, view=2)
    batches = DataLoader(
        loader(data, keys).dataset,
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        multiprocessing_context=start,
    )
    found = torch.cat([inputs for inputs, _ in batches])
    assert torch.equal(found, data.batch(np.concatenate(list(keys)))[0])


def test_other_random_draws_neither_disturb_views_nor_are_disturbed() -> None:
    data = viewed(*BOTH)
    before = data.batch(every_key())[0]
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    after = data.batch(every_key())[0]
    assert torch.equal(before, after)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_views_and_seeds_differ_and_without_operations_all_are_the_input() -> None:
    data = viewed(*BOTH)
    distinct = {data[3, view][0].numpy().tobytes() for view in range(50)}
    assert len(distinct) > 30, f"{len(distinct)} of 50 views are distinct"
    assert not torch.equal(data.batch(every_key())[0], viewed(*BOTH, seed=1).batch(every_key())[0])
    assert torch.equal(viewed()[3, 4][0], torch.from_numpy(images()[3]))


def test_what_is_changed_in_a_batch_is_not_changed_in_the_data() -> None:
    for operations in ((), BOTH):
        data = viewed(*operations)
        inputs, labels = data.batch(every_key())
        inputs.zero_()
        labels.fill_(-1)
        assert np.array_equal(data.data.raw(np.arange(60)), images())
        assert data.data.labels.min() == 0


@pytest.mark.parametrize("operation", BOTH)
def test_augmenting_leaves_its_images_as_they_are(operation: Augmentation) -> None:
    given = images()
    found, _ = viewed(operation, inputs=given).batch(every_key(views=1))
    assert np.array_equal(given, images())
    assert not np.array_equal(found.numpy(), given)
    assert found.is_contiguous()


def test_features_have_no_views_but_themselves() -> None:
    features = np.ones((4, 6), np.float32)
    assert torch.equal(viewed(inputs=features)[2][0], torch.ones(6))
    with pytest.raises(DataError, match=r"views.augment: flip: .*images"):
        viewed(Flip(op="flip"), inputs=features)


# Every operation, alone and together, in the ways in which views are asked for

LISTS: dict[str, list[dict[str, Any]]] = {
    "resized crop": [{"op": "random-resized-crop", "size": 6}, {"op": "flip"}],
    "colours": [{"op": "color-jitter"}, {"op": "cutout", "size": 4}],
    "erasing": [{"op": "center-crop", "size": 7}, {"op": "random-erasing", "p": 0.7}],
    "torchvision": [{"op": "rand-augment"}, {"op": "trivial-augment"}],
    "by name": [{"op": "transform", "name": "torchvision:RandomRotation", "degrees": 30}],
    "mixup": [{"op": "pad-crop", "padding": 2}, {"op": "mixup", "alpha": 0.8}, {"op": "flip"}],
    "cutmix": [{"op": "flip"}, {"op": "cutmix", "p": 0.6}, {"op": "pad-crop", "padding": 1}],
    "both": [{"op": "cutmix"}, {"op": "mixup", "alpha": 1.0}],
}


def through(operations: list[dict[str, Any]], seed: int = 0) -> ViewedData:
    data = ArrayData("test", "train", images(60, (3, 9, 8)), np.arange(60) % 10, ())
    settings = ViewsSettings.model_validate_json(
        json.dumps({"augment": operations, "count": 4, "seed": seed})
    )
    return ViewedData(data, settings)


@pytest.mark.parametrize("name", LISTS)
def test_any_operations_in_a_batch_are_those_alone(name: str) -> None:
    data, keys = through(LISTS[name]), np.random.default_rng(1).permutation(every_key())
    alone = {(index, view): data[index, view] for index, view in keys.tolist()}
    for batch_size in (7, 256):
        for start in range(0, len(keys), batch_size):
            batch = keys[start : start + batch_size]
            inputs, labels = data.batch(batch)
            for place, key in enumerate(map(tuple, batch.tolist())):
                assert torch.equal(inputs[place], alone[key][0]), key
                assert torch.equal(labels[place], alone[key][1]), key
    together = data.batches(np.array_split(keys, 9))
    for found, batch in zip(together, np.array_split(keys, 9), strict=True):
        assert all(torch.equal(*parts) for parts in zip(found, data.batch(batch), strict=True))
    assert inputs.shape[1:] == data.input_shape
    assert inputs.dtype == torch.uint8
    assert not torch.equal(inputs, through(LISTS[name], seed=1).batch(batch)[0])


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("part", [1 << 20, 500])
def test_labels_that_come_first_and_inputs_are_those_of_a_batch(
    name: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_PART_BYTES", part)
    data, keys = through(LISTS[name]), np.random.default_rng(1).permutation(every_key())
    keys[:9, 0] -= 60  # which count from the end
    found = data.labels_first(keys)
    if data.mixes_labels:
        assert found is None
        return
    assert found is not None
    labels, inputs_of = found
    for first, end in ((0, 7), (7, 7), (100, 180), (3, 180)):
        inputs, expected = data.batch(keys[first:end])
        assert torch.equal(torch.from_numpy(labels[first:end]), expected)
        made = inputs_of(first, end)
        assert torch.equal(made, inputs)
        assert made.is_contiguous()
    keys[5, 0] = 60
    with pytest.raises(IndexError):
        data.labels_first(keys)


def test_labels_come_first_of_no_class_that_makes_batches_in_another_way() -> None:
    class Other(ViewedData):
        def batch(self, keys: Any) -> tuple[Any, torch.Tensor]:
            inputs, labels = super().batch(keys)
            return inputs, labels + 1

    data = viewed(*BOTH)
    assert data.labels_first(every_key()) is not None
    assert Other(data.data, data.settings).labels_first(every_key()) is None


class Beside:
    """Batches of several data of the same keys, so that processes that are slow to start try them all."""

    def __init__(self, several: list[ViewedData]) -> None:
        self.datasets: list[Any] = [loader(data, every_key()).dataset for data in several]

    def __getitem__(self, keys: Keys) -> list[Any]:
        return [dataset[keys] for dataset in self.datasets]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_any_operations_are_the_same_in_workers(start: str) -> None:
    every = {name: through(operations) for name, operations in LISTS.items()}
    keys = OrderedKeys(60, 25, view=2)
    batches = DataLoader(
        Beside(list(every.values())),  # type: ignore[arg-type]
        batch_size=None,
        sampler=keys,
        num_workers=1 if start == "spawn" else 2,  # of which each imports torch
        multiprocessing_context=start,
    )
    for (name, data), found in zip(every.items(), zip(*batches, strict=True), strict=True):
        inputs, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        expected, expected_labels = data.batch(np.concatenate(list(keys)))
        assert torch.equal(inputs, expected), name
        assert torch.equal(labels, expected_labels), name


@pytest.mark.parametrize("name", LISTS)
def test_no_operation_touches_a_generator_of_the_process(name: str) -> None:
    data = through(LISTS[name])
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = data.batch(every_key())[0]
    after = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])
    random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(first, data.batch(every_key())[0])


# Mixed samples


def test_mixed_up_pixels_and_labels_have_the_same_shares() -> None:
    crop, mix = {"op": "pad-crop", "padding": 2}, {"op": "mixup", "alpha": 1.0}
    mixed, cropped = through([crop, mix]), through([crop])
    for index, view in [(0, 0), (17, 1), (59, 3)]:
        bits = choices(0, np.array([index]), np.array([view]), 1)
        partner, weight = int(mixing.partner(bits, 60)[0]), int(mixing.mixup_weight(bits, 1.0, 1.0)[0])
        own, other = cropped[index, view][0].int(), cropped[partner, view][0].int()
        expected = (own * weight + other * (65536 - weight) + 32768) // 65536
        found, label = mixed[index, view]
        assert torch.equal(found.int(), expected)
        shares = torch.zeros(10)
        shares[index % 10] += weight / 65536
        shares[partner % 10] += 1 - weight / 65536
        torch.testing.assert_close(label, shares)


def test_the_label_of_a_pasted_box_is_its_share_of_the_area() -> None:
    mixed, plain = through([{"op": "cutmix"}]), through([{"op": "flip", "p": 0.0}])
    seen = set()
    for index in range(60):
        bits = choices(0, np.array([index]), np.array([0]), 0)
        partner = int(mixing.partner(bits, 60)[0])
        own, other = plain[index][0], plain[partner][0]
        found, label = mixed[index, 0]
        assert (found.eq(own) | found.eq(other)).all()
        top, left, height, width = (int(value[0]) for value in mixing.cutmix_box(bits, (9, 8), 1.0, 1.0))
        box = found[:, top : top + height, left : left + width]
        assert torch.equal(box, other[:, top : top + height, left : left + width])
        if index % 10 != partner % 10:
            assert float(label[partner % 10]) == pytest.approx(height * width / 72)
            seen.add(height * width)
    assert len(seen) > 10
    assert mixed.batch(every_key(views=1))[1].sum(1).allclose(torch.ones(60))


def test_without_a_label_a_sample_has_no_share_in_any_class() -> None:
    data = through([{"op": "mixup", "alpha": 1.0, "p": 0.0}])
    data.data.labels[5] = -1
    labels = data.batch([(5, 0), (6, 0)])[1]
    assert labels[0].sum() == 0
    assert labels[1].tolist() == [0.0] * 6 + [1.0] + [0.0] * 3


# Every outcome


def enumerated(padding: int = 2, p: float = 0.5) -> tuple[ViewedData, ViewedData]:
    """The same data through every outcome, and through as many views as one likes."""
    operations = [{"op": "pad-crop", "padding": padding}, {"op": "flip", "p": p}]
    counted = ViewsSettings.model_validate_json(
        json.dumps({"augment": operations, "count": "all", "seed": 3})
    )
    data = ArrayData("test", "train", images(), np.arange(60) % 10, ())
    return ViewedData(data, counted), ViewedData(data, counted.model_copy(update={"count": 1}))


def test_all_is_every_outcome_once() -> None:
    data, _ = enumerated()
    assert data.settings.num_views == 50
    assert len({data[7, view][0].numpy().tobytes() for view in range(50)}) == 50
    operations = [{"op": "pad-crop", "padding": 4}, {"op": "flip"}]
    settings = ViewsSettings.model_validate_json(json.dumps({"augment": operations, "count": "all"}))
    assert settings.num_views == 162
    with pytest.raises(IndexError, match="view 50: there are 50"):
        data[0, 50]


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_a_student_of_all_sees_the_very_pixels_that_a_live_teacher_would(p: float) -> None:
    data, live = enumerated(p=p)
    indices = np.arange(60)
    for epoch in (0, 1, 2, 50, 51, 10_000):
        views = data.cached_views(indices, epoch)
        assert np.array_equal(views, data.live_views(indices, epoch))
        drawn = data.batch(np.stack([indices, views], axis=1))[0]
        fresh = live.batch(np.stack([indices, live.live_views(indices, epoch)], axis=1))[0]
        assert torch.equal(drawn, fresh), f"epoch {epoch}"


def test_every_outcome_comes_equally_often() -> None:
    data, _ = enumerated()
    counts = np.zeros(50, int)
    for epoch in range(500):
        counts += np.bincount(data.cached_views(np.arange(60), epoch), minlength=50)
    assert chisquare(counts).pvalue > 1e-4


def test_epochs_go_round_the_views_and_a_live_teacher_never_sees_one_again() -> None:
    data = through(LISTS["mixup"])
    indices = np.arange(5)
    assert [data.cached_views(indices, epoch).tolist() for epoch in (0, 3, 4, 9)] == [
        [0] * 5,
        [3] * 5,
        [0] * 5,
        [1] * 5,
    ]
    assert data.live_views(indices, 9).tolist() == [9] * 5


# The operations, an image at a time


def longhand_pad_crop(image: NDArray[Any], padding: int, top: int, left: int) -> NDArray[Any]:
    channels, height, width = image.shape
    cropped = np.zeros_like(image)
    for channel in range(channels):
        for y in range(height):
            for x in range(width):
                from_y, from_x = y + top - padding, x + left - padding
                if 0 <= from_y < height and 0 <= from_x < width:
                    cropped[channel, y, x] = image[channel, from_y, from_x]
    return cropped


@pytest.mark.parametrize("inputs", [images(20), images(20, dtype="float32"), images(20, shape=(1, 2, 13))])
def test_views_are_those_of_the_operations_written_out(inputs: NDArray[Any]) -> None:
    keys = np.stack([np.arange(20), np.arange(20) % 4], axis=1)
    found = viewed(*BOTH, seed=11, inputs=inputs).batch(keys)[0].numpy()
    for place, image in enumerate(inputs):
        crop = longhand_choices(11, place, place % 4, 0)
        expected = longhand_pad_crop(image, 3, (crop[0] >> 32) * 7 >> 32, (crop[1] >> 32) * 7 >> 32)
        if (longhand_choices(11, place, place % 4, 1)[0] >> 11) / 2**53 < 0.5:
            expected = expected[:, :, ::-1]
        assert np.array_equal(found[place], expected), f"image {place}"
    assert (found.dtype, found.shape) == (inputs.dtype, inputs.shape)
    assert found.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(("p", "mirrored"), [(0.0, False), (1.0, True)])
def test_a_flip_is_never_or_always_where_it_says_so(p: float, mirrored: bool) -> None:
    found = viewed(Flip(op="flip", p=p)).batch(every_key(views=1))[0].numpy()
    assert np.array_equal(found, images()[..., ::-1] if mirrored else images())
