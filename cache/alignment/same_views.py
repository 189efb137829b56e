"""Whether views are those that a cache is of: by what both say of themselves, and in doubt by their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from decant.cache.alignment.keys import Keys
from decant.cache.errors import Difference, MismatchError, warn
from decant.cache.identities import differences
from decant.cache.inputs import input_crc32
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource

_PROBES = 16
_IN_WORDS = ("transform", "dataset", "code")
"""What is said of views that may read otherwise with another version of a library, and still be the same pixels."""


@runtime_checkable
class ReadsViews(Protocol):
    """A dataset like `decant.Views`: makes views of a batch at once, and says which they are."""

    @property
    def count(self) -> int:
        """V."""

    @property
    def mixes_labels(self) -> bool:
        """Whether labels are mixed ones, and not the samples' own."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Seed and transforms, as `identity.views` of a manifest has them."""

    def __len__(self) -> int: ...

    def read_views(self, keys: Keys, /) -> tuple[list[Any], list[Any], list[Any]]:
        """Items of (index, view) keys, and of each the input and the label that the teacher's pass saw."""


def require_same_views(views: ReadsViews, source: LogitSource) -> None:
    """Raises MismatchError, naming the fields, where a cache is of other views.

    A transform that only reads otherwise, and whose inputs have the recorded checksums, is said and taken. Of a cache
    that says nothing of its transforms, the number of views is compared alone: inputs are while they are read.
    """
    for cache in source.members:
        found = dict(cache.manifest.identity["views"])
        if views.count != cache.num_views:
            raise _other_views(cache, [Difference("views.count", views.count, cache.num_views)])
        if "probes" not in found:  # it was not written from views like these
            continue
        del found["probes"]
        expected = {**views.identity, "count": views.count}
        different = differences({"views": expected}, {"views": found}, ("views",))
        if not different:
            continue
        if not all(_is_in_words(each) for each in different) or not _has_the_inputs(views, cache):
            raise _other_views(cache, different)
        said = "; ".join(map(str, different))
        warn(
            f"{cache.path}: the views read otherwise than those of the cache, and {_PROBES} of their inputs are the "
            f"same: {said}"
        )


def takes_index(dataset: Any, index: int) -> bool:
    """Whether a dataset can be read by an index without a view."""
    try:
        dataset[index]
    except Exception:  # whatever it raises, it does not take an index
        return False
    return True


def takes_no_view(source: LogitSource, data: object) -> MismatchError:
    """The error of data that take an index alone, where a cache has several views."""
    return MismatchError(
        f"{source.path}: has {source.num_views} views, and {type(data).__name__} takes an "
        "index alone: dataset[index, view] must be (input, label) of that view, with the pixels that the teacher "
        "saw. decant.Views is such a dataset of any data and transform, decant.recipe_dataset(RECIPE) of "
        "a recipe's; in a class of your own, let __getitem__ take (index, view)"
    )


def views_within(source: LogitSource, holder: str) -> MismatchError:
    """The error of views in a dataset of torch's that cannot be asked for them, by the name of its class."""
    return MismatchError(
        f"{source.path}: has {source.num_views} views, and a {holder} of Views takes an index alone: make it Views of "
        f"a {holder}, decant.Views({holder}(…), …); of parts that have a cache each, make a SoftLabelDataset each, and "
        "of these a torch.utils.data.ConcatDataset"
    )


def _is_in_words(difference: Difference) -> bool:
    return difference.field.removeprefix("views.").partition("[")[0].partition(".")[0] in _IN_WORDS


def _has_the_inputs(views: ReadsViews, cache: LogitCache) -> bool:
    """Whether inputs at even distances, each in another view, have the checksums of the cache."""
    samples = np.linspace(0, cache.num_samples - 1, min(_PROBES, cache.num_samples)).astype(np.intp)
    keys = np.stack([samples, np.arange(len(samples)) % views.count], axis=1)
    _, inputs, _ = views.read_views(keys)
    expected: list[int | None] = cache.input_crc32[keys[:, 1], samples].tolist()
    return [input_crc32(value) for value in inputs] == expected


def _other_views(cache: LogitCache, different: list[Difference]) -> MismatchError:
    lines = "".join(f"\n  {difference}" for difference in different)
    return MismatchError(
        f"{cache.path}: is a cache of other views:{lines}\nBuild one of these with decant.cache_logits.",
        different,
    )
