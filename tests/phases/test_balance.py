"""Classes of different sizes: what a sample counts, and how often it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from decant.pipeline.phases.balance import balanced_weights, class_counts, drawing_shares
from decant.pipeline.training.loading import ShuffledKeys

LABELS = np.array([0] * 90 + [1] * 9 + [3] + [-1] * 20)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    reference = pytest.importorskip("sklearn.utils.class_weight")
    labels = LABELS[LABELS >= 0]
    expected = reference.compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    weights = balanced_weights(LABELS, 4)
    assert [weights[label] for label in (0, 1, 3)] == pytest.approx(expected.tolist())
    assert weights[2] == weights[3], "a class without samples counts as the rarest"


def test_every_class_is_drawn_as_often_and_what_has_no_label_as_often_as_it_is() -> None:
    shares = drawing_shares(LABELS, 4)
    assert shares.sum() == pytest.approx(1)
    each = [shares[label == LABELS].sum() for label in (0, 1, 3)]
    assert each == pytest.approx([each[0]] * 3)
    assert shares[LABELS == -1].sum() == pytest.approx(20 / 120)
    assert class_counts(LABELS, 4).tolist() == [90, 9, 0, 1]


def test_the_balanced_order_is_a_function_of_seed_and_epoch() -> None:
    shares = drawing_shares(LABELS, 4)

    def drawn(seed: int, epoch: int) -> np.ndarray:
        keys = ShuffledKeys(len(LABELS), 16, seed, shares=shares)
        keys.epoch = epoch
        return np.concatenate([*keys])[:, 0]

    assert (drawn(1, 2) == drawn(1, 2)).all()
    assert not (drawn(1, 2) == drawn(1, 3)).all()
    assert not (drawn(1, 2) == drawn(2, 2)).all()
    many = LABELS[np.concatenate([drawn(0, epoch) for epoch in range(50)])]
    counts = [(many == label).mean() for label in (0, 1, 3, -1)]
    assert counts == pytest.approx([5 / 18] * 3 + [1 / 6], abs=0.02)
