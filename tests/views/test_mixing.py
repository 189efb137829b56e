"""Mixup and CutMix: a pixel at a time by hand; what a sample keeps of its pixels it keeps of its label."""

from __future__ import annotations

from fractions import Fraction
from math import floor, sqrt

import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp

from decant.pipeline.views.arrays import ONE
from decant.pipeline.views.mixing import cutmix, cutmix_box, cutmix_share, mixup, mixup_weight, partner
from tests.helpers.pixels import bits, crc32, draw, images, operate

OWN, OTHERS = images(), images(seed=1)


def test_mixup_is_the_weighted_mean_of_two_images() -> None:
    weight = np.linspace(0, ONE, len(OWN)).astype(np.int64)
    found = operate(mixup, OWN, OTHERS, weight)
    for place in range(0, 300, 7):
        share = Fraction(int(weight[place]), ONE)
        for pixel in np.ndindex(OWN.shape[1:]):
            mean = share * int(OWN[place, *pixel]) + (1 - share) * int(OTHERS[place, *pixel])
            assert found[place, *pixel] == floor(mean + Fraction(1, 2)), f"image {place}, weight {share}"


def test_a_weight_of_one_is_the_image_and_of_none_its_partner() -> None:
    assert np.array_equal(mixup(OWN, OTHERS, np.full(300, ONE)), OWN)
    assert np.array_equal(mixup(OWN, OTHERS, np.full(300, 0)), OTHERS)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_cutmix_takes_a_box_from_the_partner_and_as_much_of_the_label(dtype: str) -> None:
    own, others = images(dtype=dtype), images(dtype=dtype, seed=1)
    boxes = cutmix_box(bits(), (9, 7), 1.0, 0.9)
    found = operate(cutmix, own, others, *boxes)
    share = cutmix_share(*boxes[2:], (9, 7))
    for place, (top, left, height, width) in enumerate(zip(*boxes, strict=True)):
        expected = own[place].copy()
        expected[:, top : top + height, left : left + width] = others[place][
            :, top : top + height, left : left + width
        ]
        assert np.array_equal(found[place], expected), f"image {place}"
        assert share[place] == (63 - height * width) / 63


def test_boxes_are_those_of_the_paper_clipped_at_the_border() -> None:
    given, shape = bits(2000), (24, 17)
    boxes = draw(lambda bits: cutmix_box(bits, shape, 1.0), given)
    weight = mixup_weight(given, 1.0)
    for place in range(2000):
        for axis, side in enumerate(shape):
            extent = floor(side * sqrt(1 - weight[place] / ONE))
            centre = int(given[place, 3 + axis] >> np.uint64(32)) * side >> 32
            covered = [x for x in range(side) if 0 <= x - (centre - extent // 2) < extent]
            assert boxes[2 + axis][place] == len(covered)
            assert not covered or boxes[axis][place] == covered[0]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_weights_are_drawn_from_the_beta_distribution(alpha: float) -> None:
    (weight,) = draw(lambda bits: mixup_weight(bits, alpha), bits(5000))
    reference = np.rint(np.random.default_rng(0).beta(alpha, alpha, 50_000) * ONE)
    assert ks_2samp(weight, reference).pvalue > 0.01
    assert min(weight) >= 0
    assert max(weight) <= ONE


@pytest.mark.parametrize("alpha", [1e-300, 1e-5, 1e4, 1e300])
def test_any_alpha_gives_a_weight(alpha: float) -> None:
    weight = mixup_weight(bits(), alpha)
    assert abs(weight.mean() / ONE - 0.5) < 0.1
    assert set(weight.tolist()) <= {0, ONE} if alpha < 1 else weight.std() / ONE < 0.02


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_samples_are_mixed_with_their_chance(p: float) -> None:
    given = bits(5000)
    (weight,) = draw(lambda bits: mixup_weight(bits, 1.0, p), given)
    *_, height, width = cutmix_box(given, (224, 224), 1.0, p)
    assert abs((weight < ONE).mean() - p) < 0.02
    assert abs((height * width > 0).mean() - p) < 0.02
    assert cutmix_share(height, width, (224, 224))[weight == ONE].tolist() == [1.0] * sum(weight == ONE)


def test_partners_are_any_of_the_samples() -> None:
    (others,) = draw(lambda bits: partner(bits, 40), bits(8000))
    assert set(others.tolist()) == set(range(40))
    assert chisquare(np.bincount(others)).pvalue > 0.01
    assert abs(np.corrcoef(others, mixup_weight(bits(8000), 1.0))[0, 1]) < 0.03


def test_pixels_and_draws_never_change_unnoticed() -> None:
    given = bits()
    weight, boxes = mixup_weight(given, 0.2, 0.9), cutmix_box(given, (9, 7), 1.0, 0.9)
    assert {
        "partners": crc32(partner(given, 50_000)),
        "weights": crc32(weight),
        "mixup": crc32(mixup(OWN, OTHERS, weight)),
        "boxes": crc32(np.stack(boxes)),
        "cutmix": crc32(cutmix(OWN, OTHERS, *boxes)),
    } == {
        "partners": 2_360_320_528,
        "weights": 2_166_094_313,
        "mixup": 4_294_412_285,
        "boxes": 3_680_275_928,
        "cutmix": 4_030_260_543,
    }
