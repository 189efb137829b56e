"""Hugging Face's datasets: dictionaries, formats, and what is kept of a dataset that was filtered or mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

import decant
from decant.cache import MismatchError, SoftLabelDataset
from decant.pipeline.errors import DataError
from tests.helpers.extras import needs
from tests.integrations.watched import jitter

pytestmark = needs("datasets")

SAMPLES, CLASSES = 30, 3


def whole(samples: int = SAMPLES) -> Any:
    """A dataset with images, labels and a text."""
    import datasets

    images = np.random.default_rng(0).random((samples, 3, 4, 4), dtype=np.float32)
    rows = {"image": list(images), "label": [index % CLASSES for index in range(samples)]}
    return datasets.Dataset.from_dict({**rows, "name": [f"picture {index}" for index in range(samples)]})


def views(dataset: Any) -> Any:
    return decant.Views(dataset, {"image": jitter}, count=2, seed=0)


def teacher() -> Any:
    torch.manual_seed(7)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, CLASSES)).eval()


@pytest.fixture
def cache(tmp_path: Path) -> Any:
    dataset = whole().with_format("torch")
    return decant.cache_logits(teacher(), views(dataset), tmp_path / "teacher.h5", batch_size=10)


def assert_logits_of_inputs(train: Any, rows: int) -> None:
    """Every row that a loader gives is what the live teacher says, in both epochs."""
    seen = 0
    for epoch in range(2):
        SoftLabelDataset.set_epoch(train, epoch)
        for batch in DataLoader(train, batch_size=7, shuffle=True):
            with torch.no_grad():
                assert (teacher()(batch["image"]) - batch["teacher_logits"]).abs().max() < 2**-9
            seen += len(batch["label"])
    assert seen == 2 * rows


def test_samples_stay_dictionaries_with_their_logits(cache: Any) -> None:
    train = SoftLabelDataset(views(whole().with_format("torch")), cache, check_inputs="all")
    assert sorted(train[0]) == ["image", "label", "name", "teacher_logits"]
    assert_logits_of_inputs(train, SAMPLES)


def test_a_filtered_or_selected_dataset_is_followed_to_its_rows(cache: Any) -> None:
    from decant.integrations.datasets import kept_rows

    dataset = whole().with_format("torch")
    for kept in (
        dataset.filter(lambda sample: sample["label"] != 1),
        dataset.shuffle(seed=1).select(range(12)),
        dataset.train_test_split(0.4, seed=0)["train"],
    ):
        rows = kept_rows(kept, of=SAMPLES)
        assert [dataset[int(row)]["name"] for row in rows] == kept["name"][:]
        train = SoftLabelDataset(Subset(views(dataset), rows.tolist()), cache, check_inputs="all")
        assert_logits_of_inputs(train, len(kept))


def test_a_filtered_dataset_in_place_of_the_whole_is_refused(cache: Any) -> None:
    for changed in (
        whole().filter(lambda sample: sample["label"] != 1),
        whole(SAMPLES + 1),
    ):
        with pytest.raises(MismatchError, match=r"data\.length"):
            SoftLabelDataset(views(changed.with_format("torch")), cache)


def test_rows_in_another_order_or_of_another_map_stop_the_first_batch(cache: Any) -> None:
    darker = whole().map(lambda sample: {"image": np.asarray(sample["image"], dtype=np.float32) / 2})
    for changed in (whole().shuffle(seed=3), whole().shuffle(seed=3).flatten_indices(), darker):
        train = SoftLabelDataset(views(changed.with_format("torch")), cache)
        with pytest.raises(MismatchError):
            next(iter(DataLoader(train, batch_size=8)))


def test_a_new_table_has_no_old_places() -> None:
    from decant.integrations.datasets import kept_rows

    with pytest.raises(DataError, match="has 20 rows, and 30 were expected: after map or flatten_indices"):
        kept_rows(whole().filter(lambda sample: sample["label"] != 1).flatten_indices(), of=SAMPLES)


def test_a_streaming_dataset_is_refused_with_the_way_out(cache: Any) -> None:
    from decant.integrations.datasets import kept_rows

    stream = whole().to_iterable_dataset()
    with pytest.raises(DataError, match=r"decant\.attach"):
        kept_rows(stream)
    with pytest.raises(TypeError, match=r"decant\.attach"):
        SoftLabelDataset(stream, cache)
