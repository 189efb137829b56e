"""Reads a few views before anything is computed from them: whether they repeat, and their checksums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from decant.cache import input_crc32, warn
from decant.pipeline.errors import DataError
from decant.pipeline.own_loop.dataset import Views
from decant.pipeline.own_loop.transforms import name_of
from decant.pipeline.views.generators import generators_kept

_SAMPLES, _VIEWS = 8, 2


class Probe(NamedTuple):
    """Some views, read twice."""

    keys: list[tuple[int, int]]
    crc32: list[int]
    """Of the inputs, in the order of the keys."""
    labels: list[Any]


def probe(views: Views) -> Probe:
    """Reads some views twice, the second time in the opposite order and one by one, when the global generators are
    elsewhere. Raises DataError, naming the transform, where they are not the same, where inputs have no checksum, and
    where the part of teacher or student is random.

    Warns where several views are all the same.
    """
    keys = probe_keys(len(views), views.count)
    with generators_kept():  # a dataset without views may draw from them
        first, labels = _checksums(views, keys)
        second = [_checksums(views, [key])[0][0] for key in reversed(keys)][::-1]
    different = [key for key, one, other in zip(keys, first, second, strict=True) if one != other]
    if different:
        raise DataError(_not_repeatable(views, different, len(keys)))
    for who in ("teacher", "student"):
        if getattr(views, who) is not None and views.is_random_for(who, keys):
            raise DataError(
                f"views.{who}: {name_of(getattr(views, who))} draws random numbers: what only the {who} does must not, "
                "or the two would see different pictures; move it into the transform that both share"
            )
    if views.count > 1:
        _warn_of_equal_views(views, keys, first)
    return Probe(keys, first, labels)


def probe_keys(length: int, count: int) -> list[tuple[int, int]]:
    """Samples at even distances, the first and the last among them, in view 0 and in the last one."""
    samples = np.unique(np.linspace(0, length - 1, min(length, _SAMPLES)).astype(np.intp)).tolist()
    chosen = sorted({0, count - 1})[:_VIEWS]
    return [(sample, view) for view in chosen for sample in samples]


def _checksums(views: Views, keys: list[tuple[int, int]]) -> tuple[list[int], list[Any]]:
    _, inputs, labels = views.read_for_teacher(keys)
    found = [input_crc32(value) for value in inputs]
    wrong = next((value for value, crc in zip(inputs, found, strict=True) if crc is None), None)
    if wrong is not None:
        raise DataError(
            f"views: inputs must be tensors, arrays, images or dictionaries of them, found {type(wrong).__name__}: of "
            "anything else there is no checksum to tell whether the student sees what the teacher saw; give several "
            "inputs as a dictionary {name: tensor}"
            + ("; make token ids of texts in the transform" if isinstance(wrong, str) else "")
        )
    return [int(crc or 0) for crc in found], labels


def _not_repeatable(views: Views, different: list[tuple[int, int]], count: int) -> str:
    index, view = different[0]
    if views.is_plain:
        return (
            f"views: {len(different)} of {count} samples that were read twice are not the same, the first is sample "
            f"{index}: {type(views.dataset).__name__} draws random numbers; make it decant.Views(dataset, count=…), "
            "which repeats them; or it gives one piece of memory for every sample, of which it must give copies"
        )
    return (
        f"views: {len(different)} of {count} views that were read twice are not the same, the first is view {view} of "
        f"sample {index}: {_culprit(views)} draws from a generator of its own that is no attribute of it, remembers "
        "earlier calls, or changes in place what the dataset keeps; let it draw from torch, numpy.random or random, "
        "keep its generator as an attribute, and work on a copy"
    )


def _culprit(views: Views) -> str:
    """The part that cannot be repeated: the dataset, or the first step whose result changes."""
    bare = Views(views.dataset, None, count=views.count, seed=views.seed, keys=views.given_keys)
    if _changes(bare):
        return f"the dataset, {type(views.dataset).__name__},"
    inner = _parts(views.transform)
    for end in range(1, len(inner) + 1):
        part = Views(views.dataset, inner[:end], count=views.count, seed=views.seed, keys=views.given_keys)
        if _changes(part):
            return f"the transform {name_of(inner[end - 1])}"
    return (
        f"the transform {name_of(views.transform)}"
        if inner
        else f"the dataset, {type(views.dataset).__name__},"
    )


def _parts(transform: Any) -> list[Any]:
    if transform is None:
        return []
    if isinstance(transform, list | tuple):
        return [part for each in transform for part in _parts(each)]
    inner = getattr(transform, "transforms", None)
    return (
        list(inner)
        if isinstance(inner, list | tuple) and type(transform).__name__ == "Compose"
        else [transform]
    )


def _changes(views: Views) -> bool:
    keys = probe_keys(len(views), views.count)
    try:
        return any(_checksums(views, keys)[0] != _checksums(views, keys[::-1])[0][::-1] for _ in range(3))
    except (DataError, TypeError):  # a part of a transform may give what has no checksum
        return False


def _warn_of_equal_views(views: Views, keys: list[tuple[int, int]], crc32: list[int]) -> None:
    half = len(keys) // 2
    if crc32[:half] == crc32[half:]:
        warn(
            f"views: view 0 and view {views.count - 1} of {half} samples are the same: nothing in the transform is "
            "random, and count=1 is enough"
        )
