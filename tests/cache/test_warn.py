"""A warning names the line that a user can change, however deep in this package it is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

import decant
from decant.cache import CacheWarning, LogitCacheWriter
from decant.cache.errors import warn
from tests.helpers.caches import manifest

N, C = 64, 5


def published(path: Path) -> None:
    with LogitCacheWriter(path, manifest(N, C, 1, "float32")) as writer:
        writer.write(range(N), np.ones((N, C)))
        writer.publish()


def cached(path: Path) -> None:
    decant.cache_logits(torch.nn.Linear(3, C), TensorDataset(torch.zeros(N, 3)), path)


@pytest.mark.filterwarnings("default:.*likely not a trained teacher.s logits")
@pytest.mark.parametrize("make", [published, cached])
def test_a_warning_names_the_line_of_the_caller(make: Callable[[Path], None], tmp_path: Path) -> None:
    with pytest.warns(CacheWarning, match="likely not a trained teacher") as said:
        make(tmp_path / "x.h5")
    assert [one.filename for one in said] == [__file__]


def test_a_thread_of_this_package_warns_too() -> None:
    with ThreadPoolExecutor() as threads, pytest.warns(CacheWarning, match="from a thread"):
        threads.submit(warn, "from a thread").result()


def test_no_line_is_counted_by_hand() -> None:
    root = Path(decant.__file__).parents[1]
    files = [file for room in ("cache", "pipeline") for file in (root / room).rglob("*.py")]
    counted = [file for file in files if re.search(r"warnings\.warn\(|stacklevel", file.read_text())]
    assert [str(file.relative_to(root)) for file in counted] == ["cache/errors.py"]
