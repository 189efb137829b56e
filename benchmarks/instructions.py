"""Instructions of the calls that run once a batch, counted by Valgrind. A count hardly varies from run to run: a change
of a twentieth is a change of the code, where two timings could not tell.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import decant
from benchmarks.caches import checked, labels_of, published
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.images import labelled, viewed
from benchmarks.measurement import Measurement, Unit

BATCH = 256
_SAMPLES, _OUTPUTS = 5_000, 100
_CALLS = 20
_ROOT = Path(__file__).resolve().parents[1]

Call = Callable[[], object]


def measure(conditions: Conditions) -> Iterator[Measurement]:
    """Row 21, a line for each call; each is counted in a process of its own, which takes a minute."""
    if shutil.which("valgrind") is None:
        raise LeftOut("valgrind is not installed")
    from torch.utils.benchmark import Timer

    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(_ROOT),
        "PYTHONHASHSEED": "0",  # how dictionaries fall is part of a count
        "OMP_NUM_THREADS": "1",
    }
    for what in _CALLS_OF:
        setup = f"from benchmarks.instructions import prepared; call = prepared({what!r}, {conditions.seed})"
        with mock.patch.dict(os.environ, environment):
            counted = Timer("call()", setup=setup).collect_callgrind(_CALLS, collect_baseline=False)
        found = counted.counts(denoise=True) / _CALLS
        yield Measurement(21, f"{what}, a batch of {BATCH}", "", found, Unit.INSTRUCTIONS)


def prepared(what: str, seed: int) -> Call:
    """The call, made once: what happens the first time is not counted."""
    folder = Path(tempfile.mkdtemp(prefix="decant-bench-"))
    call = _CALLS_OF[what](Conditions(folder, quick=True, seed=seed))
    call()
    shutil.rmtree(folder)  # the file that is open stays
    return call


def _logits(conditions: Conditions) -> Call:
    cache = checked(published(conditions, _SAMPLES, _OUTPUTS))
    rows = conditions.random().integers(0, _SAMPLES, BATCH)
    return lambda: cache.logits(rows)


def _batch(conditions: Conditions) -> Call:
    data, keys = labelled(conditions, viewed(conditions, _SAMPLES)), _keys(conditions)
    return lambda: data.batch(keys)


def _join(conditions: Conditions) -> Call:
    """Of the same call what a change of it can be seen in: the inputs are made beforehand."""
    data, keys = labelled(conditions, viewed(conditions, _SAMPLES)), _keys(conditions)
    joined = decant.SoftLabelDataset(_Made(data.dataset.batch(keys)), data.cache)  # type: ignore[attr-defined]
    return lambda: joined.batch(keys)


def _keys(conditions: Conditions) -> np.ndarray:
    """(B, 2): random samples in view 0, as a loader asks for them."""
    return np.stack([conditions.random().integers(0, _SAMPLES, BATCH), np.zeros(BATCH, np.int64)], axis=1)


class _Made:
    """A dataset with one batch, which is there."""

    def __init__(self, made: tuple[Any, Any]) -> None:
        self.made = made

    def __len__(self) -> int:
        return _SAMPLES

    def __getitem__(self, key: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def batch(self, keys: Any) -> tuple[Any, Any]:
        return self.made


def _write(conditions: Conditions) -> Call:
    room = 20 * _CALLS * BATCH  # calls that are not counted need rows too
    manifest = decant.Manifest.build(num_samples=room, num_outputs=_OUTPUTS)
    writer = decant.LogitCacheWriter(conditions.folder / "written.h5", manifest)
    logits = conditions.random().standard_normal((BATCH, _OUTPUTS)).astype("f2")
    first = itertools.count(0, BATCH)

    def write() -> None:
        rows = np.arange(BATCH) + next(first)
        writer.write(rows, logits, labels=labels_of(rows))

    return write


def _views(conditions: Conditions) -> Call:
    data = viewed(conditions, _SAMPLES)
    keys = np.stack([conditions.random().integers(0, _SAMPLES, BATCH), np.arange(BATCH)], axis=1)
    return lambda: data.batch(keys)


_CALLS_OF: dict[str, Callable[[Conditions], Call]] = {
    "LogitCache.logits": _logits,
    "SoftLabelDataset.batch": _batch,
    "SoftLabelDataset.batch of inputs that are made": _join,
    "LogitCacheWriter.write": _write,
    "pad-crop-flip views": _views,
}
