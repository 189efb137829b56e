"""Whether a teacher still gives the logits that a cache holds of it: a few of them, computed again.

Class, code and weights tell most teachers apart. A temperature, a hook, another activation, the graph of an exported
program or the file behind a name change what a teacher says all the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, Manifest, MismatchError, warn
from decant.pipeline.errors import ModelError
from decant.pipeline.own_loop.teacher_pass import TeacherPass
from decant.pipeline.training.loading import Keys, in_order

_ROWS = 4
_MOST_BESIDE = 4096
"""Rows of one batch, whatever a file notes."""
_EXACT, _HALF = 2**-4, 2**-3
"""The share of the largest logit that the same teacher may differ by from one machine or batch to another, in float32
and in half precision.
"""


def require_same_teacher(run: TeacherPass, cache: LogitCache) -> None:
    """Raises MismatchError where a teacher gives other logits than a cache that is whole holds, and ModelError where it
    fails.
    """
    first = cache.num_samples // 2 // run.batch_size * run.batch_size
    samples = np.arange(first, min(first + run.batch_size, cache.num_samples))
    keys = _few(run, samples, cache.num_views - 1)
    _require(run, keys, cache.manifest, cache.encoded(keys[:, 0], keys[:, 1]), cache.path)


def require_same_as_begun(run: TeacherPass, writer: LogitCacheWriter) -> None:
    """The same of a pass that goes on, with rows that are written; nothing where none is."""
    for view in range(writer.manifest.num_views):
        samples = np.flatnonzero(writer.is_written(view))
        if len(samples):
            keys = _few(run, samples, view)
            rows = [writer.encoded(*key) for key in keys.tolist()]
            stored = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            _require(run, keys, writer.manifest, stored, writer.partial)
            break


def _require(
    run: TeacherPass, keys: Keys, manifest: Manifest, stored: Mapping[str, NDArray[Any]], where: Path
) -> None:
    now = run.answers(keys)
    if now.shape[1] != manifest.num_outputs:
        raise _mismatch(
            run, where, f"gives {now.shape[1]:,} outputs, and the file has {manifest.num_outputs:,}"
        )
    if not np.isfinite(now).all():
        raise _mismatch(run, where, "gives logits that are not finite")
    share, largest = _HALF if run.is_half else _EXACT, float(np.abs(now).max())
    apart, rounding = manifest.encoding.compare(stored, now)
    if apart <= rounding + share * largest:
        return
    with contextlib.suppress(ModelError):  # more than a batch of now may need more memory than there is
        beside = _as_cached(run, keys, manifest)
        if np.abs(now - beside).max() > share * largest:
            # They depend on the others of a batch, which was said when they were cached.
            apart, rounding = manifest.encoding.compare(stored, beside)
            if not apart <= rounding + share * largest:  # a pass that went on had other batches, perhaps
                _say_unknown(run, where, apart)
            return
    raise _mismatch(run, where, f"gives logits that are up to {apart:.3g} apart, of at most {largest:.3g}")


def _as_cached(run: TeacherPass, keys: Keys, manifest: Manifest) -> NDArray[np.float32]:
    """The logits of some rows, each beside those that the pass which began the file computed it with."""
    noted = manifest.info.get("batch_size")
    size = min(noted, _MOST_BESIDE) if isinstance(noted, int) and noted > 0 else run.batch_size
    batches = {
        number: run.answers(in_order(number, size, manifest.num_samples, int(keys[0, 1])))
        for number in np.unique(keys[:, 0] // size).tolist()
    }
    return np.stack([batches[sample // size][sample % size] for sample in keys[:, 0].tolist()])


def _say_unknown(run: TeacherPass, where: Path, apart: float) -> None:
    warn(
        f"{where}: whether it holds what {run.name} says cannot be told: its logits change with the other samples of a "
        f"batch, or each time it is called, and are up to {apart:.3g} apart from the file's"
    )


def _mismatch(run: TeacherPass, where: Path, how: str) -> MismatchError:
    return MismatchError(
        f"{where}: holds what another teacher says: {run.name} is by its name and weights the one that is noted, but "
        f"{how}. What is no weight has changed, as a temperature, an activation, a hook, or the file behind a name. "
        "Set it as it was, give another path, or delete the file."
    )


def _few(run: TeacherPass, samples: NDArray[np.intp], view: int) -> Keys:
    """Some rows of a view, at even distances, of one batch of the pass: what is in others may be of another shape, and
    more than a batch may need more memory than there is.
    """
    batches = samples // run.batch_size
    samples = samples[batches == batches[len(samples) // 2]]
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _ROWS)).astype(np.intp))
    return np.stack([samples[chosen], np.full_like(chosen, view)], 1).astype(np.int64)
