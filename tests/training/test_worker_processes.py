"""How the workers of a loader are started, and what is said where the data cannot be sent to them."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing import context
from typing import Any

import numpy as np
import pytest
import torch

from decant.pipeline.errors import DataError
from decant.pipeline.training.loading import OrderedKeys, loader


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A program that has chosen no start method, where the usual one is that of Python 3.14."""
    default = context._default_context
    monkeypatch.setattr(default, "_default_context", multiprocessing.get_context("forkserver"))
    monkeypatch.setattr(default, "_actual_context", None)
    return monkeypatch


def local_data() -> Any:
    """Data of a class that cannot be pickled."""

    class Local:
        def __len__(self) -> int:
            return 4

        def batch(self, keys: Any, /) -> tuple[torch.Tensor]:
            return (torch.from_numpy(np.array(keys)),)

    return Local()


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_are_forked_where_the_program_chose_nothing(usual: pytest.MonkeyPatch) -> None:
    batches = [keys.tolist() for (keys,) in loader(local_data(), OrderedKeys(4, 2), workers=1)]
    assert batches == [[[0, 0], [1, 0]], [[2, 0], [3, 0]]]
    assert multiprocessing.get_start_method(allow_none=True) is None, (
        "nothing is chosen for the program either"
    )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_data_that_cannot_be_sent_are_refused_in_words(method: str, usual: pytest.MonkeyPatch) -> None:
    usual.setattr(context._default_context, "_actual_context", multiprocessing.get_context(method))
    said = (
        r"cannot be sent to the processes that read them, .*local_data.<locals>.Local.*top level of a module"
    )
    with pytest.raises(DataError, match=said):
        list(loader(local_data(), OrderedKeys(4, 2), workers=1))
