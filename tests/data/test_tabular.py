"""The embedded regression: every patient once, features as they come, the target in units of the training part."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_diabetes

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import identity, load
from decant.pipeline.data.samples import LabelledData, Split, has_labels, num_outputs, num_targets, task_of


def diabetes(split: Split) -> LabelledData:
    return load(DataSettings(name="diabetes"), ViewsSettings(), split)


def test_each_patient_is_in_one_part_with_the_features_as_they_come() -> None:
    features, progress = load_diabetes(return_X_y=True)
    rows = {
        tuple(row): value for row, value in zip(features.astype(np.float32).tolist(), progress, strict=True)
    }
    found = []
    for split, length in (("train", 353), ("test", 89)):
        part = diabetes(split)  # type: ignore[arg-type]
        assert (len(part), part.input_shape, part.labels.shape) == (length, (10,), (length, 1))
        inputs = part.raw(np.arange(length))
        assert inputs.dtype == part.labels.dtype == np.float32
        found += [tuple(row) for row in inputs.tolist()]
    assert len(found) == len(set(found)) == 442
    assert set(found) == set(rows)


def test_the_target_is_standardised_by_the_training_part_in_both() -> None:
    features, progress = load_diabetes(return_X_y=True)
    place = {tuple(row): index for index, row in enumerate(features.astype(np.float32).tolist())}
    train, test = diabetes("train"), diabetes("test")
    rows = {
        part.split: [place[tuple(row)] for row in part.raw(np.arange(len(part))).tolist()]
        for part in (train, test)
    }
    mean, std = progress[rows["train"]].mean(), progress[rows["train"]].std()
    for part in (train, test):
        assert np.allclose(part.labels[:, 0], (progress[rows[part.split]] - mean) / std, atol=1e-6)
    assert abs(train.labels.mean()) < 1e-6
    assert abs(train.labels.std() - 1) < 1e-6


def test_it_is_a_regression_of_one_target_the_same_every_time() -> None:
    data = diabetes("train")
    assert (task_of(data), num_targets(data), num_outputs(data), data.classes) == ("regression", 1, 1, ())
    assert has_labels(data)
    assert identity(data) == identity(diabetes("train"))
    assert identity(data)["sha256"] != identity(diabetes("test"))["sha256"]
