"""Datasets that are pickled: this version reads what it has pickled, and refuses in words what another has."""

from __future__ import annotations

import copy
import copyreg
import io
import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

import decant
from decant.cache import CacheError, OfOneVersion, pickled
from decant.cache.sequences import SequenceDataset
from decant.cache.stream import SoftLabelStream
from decant.language import TokenDataset
from tests.helpers.caches import build

IMAGES = torch.zeros(50, 3)


class Mine(decant.SoftLabelDataset):
    """With state of its own."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mine": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cache = decant.LogitCache.open(build(tmp_path_factory.mktemp("pickled") / "cache.h5"))
    views = decant.Views(TensorDataset(IMAGES, torch.zeros(50, dtype=torch.int64)), count=2)
    train, mine = (
        kind(views, cache, check_inputs="off", compare_labels=False)
        for kind in (decant.SoftLabelDataset, Mine)
    )
    for each in (train, mine):
        each.set_epoch(1)
    stream = decant.attach([(IMAGES[0], 0, (7, 1))], cache, key=2, check_inputs="off", compare_labels=False)
    return {"views": views, "dataset": train, "subset": Subset(train, [3, 4]), "mine": mine, "stream": stream}


KINDS = pytest.mark.parametrize("kind", ["views", "dataset", "subset", "mine", "stream"])


@KINDS
def test_what_this_version_has_pickled_is_read(made: dict[str, Any], kind: str) -> None:
    for again in (pickle.loads(pickle.dumps(made[kind])), copy.deepcopy(made[kind]), copy.copy(made[kind])):
        first, expected = (next(iter(DataLoader(each, batch_size=None)))[0] for each in (again, made[kind]))
        assert torch.equal(first, expected)
        assert kind != "mine" or again.mine == 3


@KINDS
def test_what_another_version_has_pickled_is_refused_before_its_attributes_are_read(
    made: dict[str, Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(pickled, "version", lambda: "0.0.1")
        content = pickle.dumps(made[kind]).replace(
            b"decant.cache.shared_epoch", b"decant.cache.epochs_shared"
        )
    with pytest.raises(CacheError, match=r"pickled by another version of Decant \(0\.0\.1, .*make it anew"):
        pickle.loads(content)


class _AsBefore(pickle.Pickler):
    """Pickles as versions did that are not noted: an empty object, then its attributes."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, OfOneVersion):
            return copyreg.__newobj__, (type(value),), vars(value)  # type: ignore[attr-defined]
        return NotImplemented


class _MethodOf:
    """Is pickled as a method of an object, which has none of that name by now."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.value, "_cannot_compare")


@KINDS
@pytest.mark.parametrize("names_a_method", [False, True])
def test_so_is_what_was_pickled_before_versions_were_noted(
    made: dict[str, Any], kind: str, names_a_method: bool
) -> None:
    dataset = copy.copy(made[kind])
    if names_a_method:
        inner = dataset
        if kind == "subset":
            inner = dataset.dataset = copy.copy(dataset.dataset)
        vars(inner)["_told"] = _MethodOf(inner)
    content = io.BytesIO()
    _AsBefore(content).dump(dataset)
    with pytest.raises(CacheError, match="was pickled by another version of Decant: make it anew"):
        pickle.loads(content.getvalue())


def test_every_dataset_that_shares_an_epoch_is_of_one_version(made: dict[str, Any]) -> None:
    for kind in (decant.Views, decant.SoftLabelDataset, SoftLabelStream, SequenceDataset, TokenDataset):
        assert issubclass(kind, OfOneVersion)
    assert not hasattr(made["dataset"], "colour")
    assert not hasattr(made["views"], "_colour")
