"""Whether the labels and inputs of samples are those of the cache's rows: what the teacher's pass was given.

One check for everything that joins samples with cached logits, by index or in an order of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decant.cache import labels as kinds_of_labels
from decant.cache.alignment.expected_batches import ExpectedBatches
from decant.cache.alignment.same_input import difference, matching_form, unlike_pixels
from decant.cache.errors import MismatchError
from decant.cache.inputs import CheckInputs, each_input, input_crc32, input_crc32_at, one_input
from decant.cache.io.usage import note
from decant.cache.source import LogitSource

_PROBES = 256
_FIRST_INPUTS = 16
"""That a process compares before it is content with one of each batch."""

Topic = Literal["labels", "inputs", "views", "repeats"]
"""What a dataset warns of once: what is not compared; views that are read again; samples that come again."""


class Alignment:
    """Compares labels and inputs of a batch with what the cache has recorded of its rows.

    >>> import tempfile
    >>> from decant.cache import LogitCache, Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits = np.float32([[4, -4], [-4, 4]])
    >>> path = import_logits(Store(folder.name), logits, np.array([0, 1]), teacher={}, data={"name": "toy"})
    >>> alignment = Alignment(LogitCache.open(path), check_inputs="off", compare_labels=True, warn_once=print)
    >>> alignment.check(np.array([1]), np.array([0]), inputs=[None], labels=[1])
    >>> alignment.check(np.array([1]), np.array([0]), inputs=[None], labels=[0])
    Traceback (most recent call last):
    ...
    decant.cache.errors.MismatchError: ...: sample 1: its label is 0, and was 1 when the teacher saw it: ...
    >>> folder.cleanup()
    """

    def __init__(
        self,
        cache: LogitSource,
        *,
        check_inputs: CheckInputs,
        compare_labels: bool,
        warn_once: Callable[[Topic, str], None],
    ) -> None:
        """warn_once: is called with a topic and a text where something cannot be compared."""
        if check_inputs not in ("sample", "all", "off"):
            raise ValueError(f"check_inputs: expected sample, all or off, found {check_inputs!r}")
        self.cache, self.check_inputs, self.compare_labels = cache, check_inputs, compare_labels
        self._warn_once = warn_once
        self._mixes_labels, self._first_inputs = False, _FIRST_INPUTS
        # The form in which inputs are what the teacher saw, where their bytes are others.
        self._form: str | None = None
        for member in cache.members:
            note(member.path)

    def require_checksums(self) -> None:
        """Raises MismatchError where all inputs are to be checked and the cache has no checksums; says it where one a
        batch is."""
        if self.check_inputs == "off" or _has_checksums(self.cache):
            return
        text = (
            "inputs cannot be compared with what the teacher saw, as the cache has no checksums of them: write it with "
            "LogitCacheWriter.write(…, inputs=…)"
        )
        if self.check_inputs == "all":
            raise MismatchError(f"{self.cache.path}: check_inputs: {text}")
        self._warn_once("inputs", f'{self.cache.path}: {text}; check_inputs="off" silences this')

    def check(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, labels: Any) -> None:
        """Raises MismatchError where labels (B,) or inputs (B, …) are not those of rows (B,) in their views (B,), and
        CorruptError where it is the cache that has changed since it was opened.
        """
        # Those of items are tuples, and never in one tensor; targets are compared one by one in any case.
        if not isinstance(labels, tuple | list) and self.cache.labels.ndim == 1:
            expected = ExpectedBatches(self.cache, rows, views, (0, len(rows)))
            if self.is_expected(expected, 0, inputs, labels):
                return
        if self.check_inputs != "off":
            self._require_each(rows, inputs)
        try:
            if self.compare_labels:
                self.check_labels(rows, labels)
            self.check_input(rows, views, inputs)
        except MismatchError:
            for member in self.cache.members:
                member.check_unchanged()
            raise

    def _require_each(self, rows: NDArray[np.intp], inputs: Any) -> None:
        """Raises MismatchError where a batch of inputs has fewer than there are rows."""
        shape = getattr(inputs, "shape", None)
        if isinstance(shape, tuple) and shape and shape[0] < len(rows):
            raise MismatchError(
                f"{self.cache.path}: the dataset gives {shape[0]:,} inputs of {len(rows):,} samples, so it is not "
                "known whose they are: leave samples that cannot be read out of the dataset, as "
                "torch.utils.data.Subset does"
            )

    def is_expected(self, expected: ExpectedBatches, number: int, inputs: Any, labels: Any) -> bool:
        """Whether `check` would find nothing in batch `number`, as its labels and its first input are byte by byte what
        the cache has. Where this is False, nothing is said yet: `check` has to tell.
        """
        if self.compare_labels and not expected.has_labels(number, labels):
            return False
        if self.check_inputs == "off":
            return True
        return (
            self.check_inputs == "sample"
            and not self._first_inputs
            and expected.has_first_input(number, inputs)
        )

    def check_labels(self, rows: NDArray[np.intp], labels: Any) -> None:
        """Raises MismatchError where labels differ from those that the cache has of these samples `rows` (B,)."""
        cached = self.cache.labels[rows]
        if kinds_of_labels.are_the_ids(labels, cached):
            return
        none = np.isnan(cached) if cached.dtype.kind == "f" else cached == -1
        if none.all():
            return
        try:
            given = self._as_cached(labels, cached)
        except kinds_of_labels.NotComparableError as error:
            self._warn_once(
                "labels",
                f"{self.cache.path}: labels are not compared with those of the teacher's pass: they are {error}, and "
                f"the cache has {'targets' if cached.dtype.kind == 'f' else 'class ids'} {cached.shape}; "
                "compare_labels=False silences this",
            )
            return
        if np.array_equal(given, cached):
            return
        closeness = 2**-8 if cached.dtype.kind == "f" and kinds_of_labels.is_half(labels) else 0.0
        different = ~(np.abs(given - cached) <= closeness * np.abs(cached)) & ~none
        different = np.flatnonzero(different.reshape(len(rows), -1).any(axis=1))
        if len(different):
            place = different[0]
            raise MismatchError(
                f"{self.cache.path}: sample {rows[place]}: its label is {given[place]}, and was "
                f"{cached[place]} when the teacher saw it: the data are re-ordered or relabelled, or the teacher's "
                "pass was over a shuffled loader; build a cache of these data"
            )

    def _as_cached(self, labels: Any, cached: NDArray[Any]) -> NDArray[Any]:
        """Labels in the shape of the cached ones. Raises NotComparableError."""
        if cached.dtype.kind == "f":
            return kinds_of_labels.targets(labels, cached.shape)
        names = self.cache.manifest.identity["data"].get("classes")
        try:
            ids = kinds_of_labels.class_ids(
                labels, self.cache.num_outputs, names if isinstance(names, list) else None
            )
        except kinds_of_labels.NotComparableError:
            self._mixes_labels = True
            raise
        if self._mixes_labels and _are_float_rows(labels):  # a mixed label may be the other sample's, whole
            raise kinds_of_labels.NotComparableError("mixed or soft")
        if len(ids) != len(cached):
            raise kinds_of_labels.NotComparableError(f"of shape {ids.shape}")
        return ids

    def check_input(self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any) -> None:
        """Raises MismatchError where an input of a batch is not what the teacher saw: the first, or any of all.

        Of the first batches all are compared until there were some: one input in two may agree by chance, as where it
        was only mirrored.
        """
        count = 0 if self.check_inputs == "off" else len(rows)
        if self.check_inputs == "sample":
            count = min(count, max(1, self._first_inputs))
        recorded = self.cache.input_crc32
        for place in range(count):
            row, view = int(rows[place]), int(views[place])
            cached = int(recorded[view, row])
            if not cached:
                continue
            found = input_crc32_at(inputs, place)
            if found == cached:
                continue
            value = one_input(inputs, place)
            if found is None:
                self._cannot_check(value)
            elif not self._is_same(value, cached):
                cause = self._cause(value, found, rows, views, inputs, place)
                raise MismatchError(
                    f"{self.cache.path}: sample {row}, view {view}: the input is not what the teacher saw "
                    f"(CRC-32 expected {cached:08x}, found {found:08x}): {cause}; build a cache of these inputs"
                )
        if self.check_inputs == "sample":  # where one was another input, these are compared once more
            self._first_inputs = max(0, self._first_inputs - count)

    def _cause(
        self,
        value: Any,
        found: int,
        rows: NDArray[np.intp],
        views: NDArray[np.intp],
        inputs: Any,
        place: int,
    ) -> str:
        """Why the input at a place of a batch is not what the teacher saw, in words."""
        row, view = int(rows[place]), int(views[place])
        another = self._another_row(found, row, view)
        if another is not None:
            return f"{another}; {self._likely_cause(rows, views, inputs)}"
        recorded = int(self.cache.input_crc32[view, row])
        return difference(value, recorded) or self._likely_cause(rows, views, inputs, unlike_pixels(value))

    def _another_row(self, crc32: int, row: int, view: int) -> str | None:
        """Of which other row of the cache an input is, in words, where the cache has one with its checksum."""
        recorded = self.cache.input_crc32
        if not crc32:  # of an input without bytes; in the cache 0 says that there is no checksum
            return None
        for number in (view, *(each for each in range(self.cache.num_views) if each != view)):
            same = np.flatnonzero(recorded[number] == np.uint32(crc32))
            if number != view and row in same:
                return (
                    f"it is view {number} of that sample: the dataset gives another view than was asked for"
                )
            if len(same):
                nearest = same[np.abs(same - row).argmin()]
                return (
                    f"it is what the teacher saw of sample {nearest}, view {number}, as where data are in another "
                    "order, or samples were added or left out"
                )
        return None

    def have_recorded_bytes(
        self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, places: Sequence[int]
    ) -> bool:
        """Whether the inputs at some places of a batch have the bytes that the teacher saw, where these are recorded.
        Others may still hold the same values, as `check_input` finds.
        """
        recorded = self.cache.input_crc32[views[places], rows[places]].tolist()
        return all(
            not cached or input_crc32_at(inputs, place) == cached
            for place, cached in zip(places, recorded, strict=True)
        )

    def _is_same(self, value: Any, crc32: int) -> bool:
        """Whether an input holds the values that the teacher saw, in another layout or dtype."""
        form = matching_form(value, crc32, self._form)
        self._form = form or self._form
        return form is not None

    def _cannot_check(self, value: Any) -> None:
        text = (
            f"inputs of type {type(value).__name__} cannot be compared with what the teacher saw; tensors, arrays, "
            "images and dictionaries of them can"
        )
        if self.check_inputs == "all":
            raise MismatchError(f'{self.cache.path}: {text}; check_inputs="off" takes them unchecked')
        self._warn_once("inputs", f'{self.cache.path}: {text}; check_inputs="off" silences this')

    def _likely_cause(
        self, rows: NDArray[np.intp], views: NDArray[np.intp], inputs: Any, all_are: str | None = None
    ) -> str:
        """What probably changed since the teacher's pass: by how many inputs differ, by what inputs are if it is not a
        few, and by the recorded versions.
        """
        cached = self.cache.input_crc32[views, rows]
        pairs = zip(each_input(inputs), cached.tolist(), strict=True)
        different = sum(input_crc32(value) != crc and not self._is_same(value, crc) for value, crc in pairs)
        versions = self.cache.manifest.info.get("versions")
        changed = [
            f"{name} {then} → {now}"
            for name, then in (versions.items() if isinstance(versions, dict) else ())
            if (now := _installed(name)) is not None and now != str(then).partition("+")[0]
        ]
        found = f"{different:,} of these {len(rows):,} inputs differ"
        if 4 * different < len(rows):
            return f"{found}: the data of those samples have changed"
        if all_are is not None:
            return all_are
        if changed:
            return f"{found}, and a library is another since: {', '.join(changed)}"
        return f"{found}: the transform has changed, or the data or their order"


def _has_checksums(cache: LogitSource) -> bool:
    """Whether inputs have checksums: looks at the first rows, and where they have none, at some at even distances."""
    some = np.linspace(0, cache.num_samples - 1, _PROBES).astype(np.intp)
    return bool(cache.input_crc32[:, :_PROBES].any() or cache.input_crc32[:, some].any())


def _are_float_rows(labels: Any) -> bool:
    first = labels[0] if len(labels) else labels
    return getattr(first, "ndim", 0) == 1 and "float" in str(getattr(first, "dtype", ""))


def _installed(name: str) -> str | None:
    """The version of an installed library, without its build; None where it is not installed."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None
