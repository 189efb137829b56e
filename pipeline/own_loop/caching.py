"""`cache_logits`: the teacher's pass over views of one's own, into a cache that is found the next time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Subset

from decant.cache import Dense, Encoding, LogitCache, LogitCacheWriter, Manifest, require_equal
from decant.cache.io.locks import exclusive, lock_path
from decant.pipeline.errors import DataError
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.own_loop.dataset import Views, plain_views
from decant.pipeline.own_loop.fingerprints import own_manifest
from decant.pipeline.own_loop.labels import Labels
from decant.pipeline.own_loop.probe import Probe, probe
from decant.pipeline.own_loop.teacher_pass import Collate, TeacherPass
from decant.pipeline.support.notices import say_once

Precision = Literal["float32", "bfloat16", "float16"]


def cache_logits(
    teacher: teachers.Teacher,
    views: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    precision: Precision = "float32",
    encoding: Encoding | None = None,
    output: teachers.Output = None,
    name: str | None = None,
    data_name: str | None = None,
    collate: Collate | None = None,
) -> LogitCache:
    """Runs a teacher once over every view of every sample and stores its logits at `path`; finds what is there.

    A pass that was killed goes on where it was when the same lines are run again. The published file never changes: a
    cache at `path` of another teacher, other data or other views is refused, with every field that differs.

    teacher: any module or callable of a batch; it is run in evaluation mode, without gradients, and gets its modes and
    its device back. It returns a tensor (B, C), or a tuple, a dictionary or a `ModelOutput`, in which the logits are
    the field "logits" or the one tensor (B, C). views: `Views`, or any map-style dataset, which is one view. device:
    None is where the teacher is. precision: other than "float32", the teacher runs under autocast. encoding: how logits
    are stored, by default `decant.encodings.Dense("float16")`. output: which field of what the teacher returns, at
    which place, or a function of it. name: of the teacher, needed where it has no weights. data_name: of the data in
    the manifest. collate: makes a batch of a list of inputs; by default torch's `default_collate`.

    Raises CacheError where `path` holds another cache or cannot be written, DataError where views do not repeat or
    cannot be collated, ModelError where the teacher fails or its logits are not found.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> data = torch.utils.data.TensorDataset(torch.rand(20, 4), torch.arange(20) % 3)
    >>> views = Views(data, lambda x: x + 0.1 * torch.randn(4), count=2, seed=0)
    >>> network = torch.nn.Linear(4, 3)
    >>> cache = cache_logits(network, views, f"{folder.name}/teacher.h5", batch_size=8)
    >>> cache.num_views, cache.num_samples, cache.num_classes
    (2, 20, 3)
    >>> live = network(views[7, 1][0])
    >>> bool((live - torch.from_numpy(cache.logits(7, view=1))).abs().max() < 0.01)
    True
    >>> folder.cleanup()
    """
    place, seen = Path(path), views if isinstance(views, Views) else plain_views(_map_style(views))
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    if not len(seen):
        raise DataError("views: the dataset has no samples")
    question = _Question(teacher, seen, precision, encoding or Dense(), name, data_name, batch_size)
    found = question.find(place)
    if found is not None:
        return found
    run = TeacherPass(
        teacher,
        seen,
        teachers.device_of(teacher, device),
        precision,
        batch_size,
        num_workers,
        output,
        collate,
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_path(place), waiting=lambda holder: say_once(f"{place}: waits for {holder}")):
        found = question.find(place)  # another process may have built it while this one waited
        if found is not None:
            return found
        with run:
            manifest, labels = question.manifest(run.num_outputs)
            with LogitCacheWriter(place, manifest) as writer:
                run.fill(writer, labels)
                return LogitCache.open(writer.publish())


class _Question:
    """Which logits are wanted: everything that identifies them but the number of outputs."""

    def __init__(
        self,
        teacher: teachers.Teacher,
        views: Views,
        precision: str,
        encoding: Encoding,
        name: str | None,
        data_name: str | None,
        batch_size: int,
    ) -> None:
        self._views, self._precision, self._encoding = views, precision, encoding
        self._data_name, self._batch_size = data_name, batch_size
        self._teacher = teachers.identity(teacher, name)
        self._probed: Probe | None = None

    def find(self, path: Path) -> LogitCache | None:
        """The cache at `path`, if there is one. Raises MismatchError where it answers another question."""
        if not path.exists():
            return None
        cache = LogitCache.open(path)
        manifest, _ = self.manifest(cache.num_outputs)
        require_equal(
            manifest.identity,
            cache.manifest.identity,
            subject=f"{path}: holds other logits than are asked for",
            hint="Give another path, or delete the file.",
        )
        return cache

    def manifest(self, num_outputs: int) -> tuple[Manifest, Labels]:
        """The manifest of the logits that are wanted, and the kind of their labels."""
        if self._probed is None:
            self._probed = probe(self._views)
        views = self._views
        classes = getattr(views.dataset, "classes", None)
        labels = Labels.of(self._probed.labels, classes, views.mixes_labels, num_outputs)
        manifest = own_manifest(
            views,
            self._probed,
            labels,
            teacher=self._teacher,
            num_outputs=num_outputs,
            encoding=self._encoding,
            precision=self._precision,
            data_name=self._data_name,
            info={"batch_size": self._batch_size, "item_keys": _as_json(views.item_keys)},
        )
        return manifest, labels


def _map_style(dataset: Any) -> Any:
    """Raises TypeError for a Subset of views, whose rows would be those of no whole dataset."""
    root = dataset
    while isinstance(root, Subset):
        root = root.dataset
    if isinstance(root, Views) and root is not dataset:
        raise TypeError(
            "views: a Subset of Views; make it Views of a Subset: Views(Subset(dataset, indices), …)"
        )
    return dataset


def _as_json(keys: Any) -> Any:
    return [list(key) if isinstance(key, tuple | list) else key for key in keys]
