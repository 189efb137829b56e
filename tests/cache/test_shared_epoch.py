"""What a dataset shares with its workers: they see an epoch that is set later, and one of them gives a warning."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable

import pytest
from torch.utils.data import DataLoader, Dataset

from decant.cache import CacheWarning, SharedEpoch


class Told(Dataset[tuple[int, int]]):
    """(the epoch, how many warnings were given)."""

    def __init__(self) -> None:
        self.epoch = SharedEpoch()

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[int, int]:
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            self.epoch.warn_once("labels", "labels are not compared")
        return self.epoch.number, len(given)


@pytest.mark.parametrize(
    "copied", [lambda data: data, copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))]
)
def test_live_workers_see_the_epoch_of_a_dataset_and_of_its_copy(copied: Callable[[Told], Told]) -> None:
    data = copied(Told())
    loader = DataLoader(data, 1, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    warned = 0
    for epoch in (0, 3, 1):
        data.epoch.set(epoch)
        found = [(int(number), int(count)) for number, count in loader]
        assert [number for number, _ in found] == [epoch] * 4
        warned += sum(count for _, count in found)
    assert warned == 1
    with pytest.warns(CacheWarning, match="another"):
        data.epoch.warn_once("inputs", "another")


def test_a_copy_has_an_epoch_of_its_own() -> None:
    first = SharedEpoch()
    first.set(3)
    other = pickle.loads(pickle.dumps(first))
    other.set(4)
    assert (first.number, first.calls, other.number, other.calls) == (3, 1, 4, 2)
