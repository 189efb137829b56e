"""What identifies the logits that are asked for: teacher, data and views; and whether a file holds them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from decant.cache import Encoding, LogitCache, Manifest, differences, require_equal
from decant.cache.io.files import storage_error
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.own_loop.dataset import Views
from decant.pipeline.own_loop.fingerprints import own_manifest
from decant.pipeline.own_loop.labels import Labels
from decant.pipeline.own_loop.probe import Probe, probe


class CacheIdentity:
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
        output: teachers.Output = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self._views, self._precision, self._encoding = views, precision, encoding
        self._data_name, self._batch_size = data_name, batch_size
        self._teacher = teachers.identity(teacher, name) | teachers.reading(output, collate)
        self._probed: Probe | None = None

    def find(self, path: Path) -> LogitCache | None:
        """The cache at `path`, if there is one. Raises MismatchError where it holds other logits."""
        cache = found_at(path)
        if cache is None:
            return None
        manifest, _ = self.manifest(cache.num_outputs)
        require_logits_of(manifest, cache)
        return cache

    def probe(self) -> Probe:
        """Some views, read twice once. Raises DataError where they are not the same."""
        if self._probed is None:
            self._probed = probe(self._views)
        return self._probed

    def manifest(self, num_outputs: int) -> tuple[Manifest, Labels]:
        """The manifest of the logits that are wanted, and the kind of their labels."""
        probed, views = self.probe(), self._views
        classes = getattr(views.dataset, "classes", None)
        labels = Labels.of(probed.labels, classes, views.mixes_labels, num_outputs)
        manifest = own_manifest(
            views,
            probed,
            labels,
            teacher=self._teacher,
            num_outputs=num_outputs,
            encoding=self._encoding,
            precision=self._precision,
            data_name=self._data_name,
            info={"batch_size": self._batch_size, "item_keys": _as_json(views.item_keys)},
        )
        return manifest, labels


_MEANINGS = {
    "data.digest": "labels, or tensors of the dataset, are others",
    "views.probes": "some inputs are others after the transform: another transform, other samples or another order, as "
    "of a random_split without a generator, or other versions of libraries",
    "views.code": "code that the transform or the dataset names was edited",
    "teacher.code": "the code of the teacher's class was edited",
    "teacher.weights_sha256": "the teacher has other weights",
}
"""What it means that a digest differs, which its two values do not tell."""


def found_at(path: Path) -> LogitCache | None:
    """The cache at a path of the user's, whatever it is of, if there is one. Raises StorageError where that cannot be
    told, and what `LogitCache.open` does.
    """
    try:
        if not path.exists():
            return None
    except OSError as error:  # as of a name that is too long
        raise storage_error(error, path, "looking for it") from error
    return LogitCache.open(path)


def require_logits_of(manifest: Manifest, cache: LogitCache) -> None:
    """Raises MismatchError, which names every field that differs, where a cache that was found at a path of the user's
    holds other logits than those that the manifest identifies.
    """
    different = differences(manifest.identity, cache.manifest.identity)
    meanings = [
        f"{field}: {words}."
        for field, words in _MEANINGS.items()
        if any(f"{one.field}.".startswith(f"{field}.") for one in different)
    ]
    require_equal(
        manifest.identity,
        cache.manifest.identity,
        subject=f"{cache.path}: holds other logits than are asked for",
        hint="\n".join([*meanings, "Give another path, or delete the file."]),
    )


def _as_json(keys: Any) -> Any:
    return [list(key) if isinstance(key, tuple | list) else key for key in keys]
