"""Loads data as a recipe does, for tests of where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import load_data
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError


def read(name: str, root: Path | str = "data", split: Split = "train", **views: Any) -> LabelledData:
    """A part of the data `name`; `views` are settings of [views]."""
    return load_data(DataSettings(name=name, root=str(root)), ViewsSettings(**views), split)


def everything(data: LabelledData) -> NDArray[Any]:
    """All inputs (N, …)."""
    return data.raw(np.arange(len(data)))


def refusal(name: str, root: Path | str = "data", split: Split = "train", **views: Any) -> str:
    """The one line that reading ends in."""
    with pytest.raises(DataError) as caught:
        everything(read(name, root, split, **views))
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)
