"""View v of sample i is a pure function of (seed, i, v): alone, in any batch, in any process, for ever."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from pipeline.errors import DataError
from pipeline.loading import Keys, OrderedKeys, loader
from pipeline.samples import ArrayData
from pipeline.settings import Augmentation, Flip, PadCrop, ViewsSettings
from pipeline.views import ViewedData, augment, below, chance, choices

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


@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (2, "spawn")])
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
    found = augment(given, np.arange(60), np.zeros(60, int), ViewsSettings(augment=(operation,)))
    assert np.array_equal(given, images())
    assert not np.array_equal(found, given)
    assert found.flags["C_CONTIGUOUS"]


def test_features_have_no_views_but_themselves() -> None:
    features = np.ones((4, 6), np.float32)
    assert torch.equal(viewed(inputs=features)[2][0], torch.ones(6))
    with pytest.raises(
        DataError, match=r"views.augment: works on images \(C, H, W\); the inputs of test are \(6,\)"
    ):
        viewed(Flip(op="flip"), inputs=features)


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
    settings = ViewsSettings(seed=11, augment=BOTH)
    indices, views = np.arange(20), np.arange(20) % 4
    found = augment(inputs, indices, views, settings)
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


# The bits


def longhand_choices(seed: int, index: int, view: int, operation: int) -> list[int]:
    """In Python's own integers."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(value: int) -> int:
        value = (value + golden) & mask
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
        value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
        return value ^ value >> 31

    key = mix((mix((mix(seed) + index) & mask) + view) & mask)
    return [mix((key + (16 * operation + place) * golden) & mask) for place in range(16)]


@pytest.mark.parametrize(
    ("seed", "index", "view", "operation", "first"),
    [
        (0, 0, 0, 0, [2391539541053276776, 920862675595841680]),
        (1, 2, 3, 1, [5840950290273555683, 17462712064989517324]),
        (9223372036854775807, 1281166, 239, 5, [8328777569078034416, 15170868099965003772]),
    ],
)
def test_the_hash_can_never_change_unnoticed(
    seed: int, index: int, view: int, operation: int, first: list[int]
) -> None:
    found = choices(seed, np.array([index]), np.array([view]), operation)
    assert found.shape == (1, 16)
    assert found[0, :2].tolist() == first
    assert found[0].tolist() == longhand_choices(seed, index, view, operation)


def test_the_bits_of_a_sample_are_those_it_has_alone() -> None:
    indices, views = np.arange(100)[::-1], np.arange(100) % 7
    together = choices(5, indices, views, 2)
    alone = [choices(5, indices[i : i + 1], views[i : i + 1], 2)[0] for i in range(100)]
    assert np.array_equal(together, alone)


N = 50_000


def uniform(
    seed: int = 0, shift: int = 0, view: int = 0, operation: int = 0, place: int = 0
) -> NDArray[np.float64]:
    """A number in 0..1 for each of N samples."""
    bits = choices(seed, np.arange(N) + shift, np.full(N, view), operation)[:, place]
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def test_offsets_are_uniform_and_independent_of_each_other() -> None:
    bits = choices(0, np.arange(N), np.zeros(N, int), 0)
    top, left = below(bits[:, 0], 9), below(bits[:, 1], 9)
    assert (top.min(), top.max(), left.min(), left.max()) == (0, 8, 0, 8)
    probability = chisquare(np.bincount(9 * top + left, minlength=81)).pvalue
    assert probability > 1e-4, f"chi-square over 81 cells: p = {probability:.2g}"


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_chance_comes_as_often_as_it_says(p: float) -> None:
    share = float(chance(choices(3, np.arange(N), np.zeros(N, int), 1)[:, 0], p).mean())
    assert abs(share - p) < 4 * (p * (1 - p) / N) ** 0.5, f"{share:.4f} of {N:,}"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"view": 1},
        {"shift": 1},
        {"operation": 1},
        {"place": 1},
        {"seed": 2**62},
        {"shift": 1, "view": 1},
    ],
)
def test_draws_of_neighbours_are_uncorrelated(other: dict[str, int]) -> None:
    correlation = float(np.corrcoef(uniform(), uniform(**other))[0, 1])
    assert abs(correlation) < 4 / N**0.5, f"{correlation:.4f}"


def test_draws_are_uncorrelated_with_the_index() -> None:
    correlation = float(np.corrcoef(uniform(), np.arange(N))[0, 1])
    assert abs(correlation) < 4 / N**0.5, f"{correlation:.4f}"


def test_no_two_samples_views_or_seeds_share_their_bits() -> None:
    grid = [choices(seed, np.arange(200), np.full(200, view), 0) for seed in range(10) for view in range(10)]
    assert len(np.unique(np.concatenate(grid).ravel())) == 10 * 10 * 200 * 16
