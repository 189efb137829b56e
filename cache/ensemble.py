"""Several teachers as one: caches of the same data and views, whose logits are averaged as they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Dense, Hidden
from decant.cache.errors import MismatchError
from decant.cache.identities import require_equal
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.source import LogitSource
from decant.cache.statistics.outputs import softmax

Mean = Literal["logits", "probabilities", "separate"]
"""What is averaged; "separate" averages nothing."""


class Ensemble:
    """Reads like one `LogitCache`; its logits are the mean over K teachers, weighted where `weights` are given.

    mean="logits" averages logits. mean="probabilities" averages softmaxes at `temperature` T and returns T·log of the
    mean, so that softmax(logits / T) is exactly that mean (Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural
    Network" (2015), section 1); of outputs with a sigmoid each it averages σ(z/T) in the same way. mean="separate"
    averages nothing: logits are (B, K, C), in the order of `caches`.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> store, labels, data = Store(folder.name), np.arange(2), {"name": "toy"}
    >>> one, other = np.float32([[4, 0], [0, 4]]), np.float32([[0, 0], [0, 8]])
    >>> paths = [import_logits(store, logits, labels, teacher={}, data=data) for logits in (one, other)]
    >>> ensemble = Ensemble([LogitCache.open(path) for path in paths], mean="logits")
    >>> ensemble.logits([0, 1])
    array([[2., 0.],
           [0., 6.]], dtype=float32)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        caches: Sequence[LogitCache],
        mean: Mean = "probabilities",
        temperature: float = 1.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        """`weights` has one number per cache, which counts by its share of the sum; None weighs all alike.

        Raises MismatchError, naming every field, unless all caches have the same data, views, classes and labels, and
        for probabilities of a regression; ValueError for a `mean` or `weights` that cannot be.
        """
        if mean not in get_args(Mean):
            raise ValueError(f"mean: expected {', '.join(get_args(Mean))}, found {mean!r}")
        require_samples(caches)
        require_agreement(caches, ("data", "views"))
        self.caches, self.mean, self.temperature = tuple(caches), mean, temperature
        manifest = caches[0].manifest
        self._sigmoids = manifest.has_sigmoids or (manifest.num_targets is None and manifest.num_outputs == 1)
        if mean == "probabilities" and manifest.num_targets is not None and not self._sigmoids:
            raise MismatchError(
                f"{caches[0].path}: outputs of a regression have no probabilities to average; average the logits"
            )
        self.weights = None if weights is None else _shares(weights, len(caches), mean)
        self.manifest = _manifest(caches, mean, temperature, self.weights)
        # Found once: to look costs a pass over the table.
        self._recorded = next((cache for cache in caches if cache.input_crc32.any()), caches[0])

    @property
    def path(self) -> Path:
        """The first file, for messages."""
        return self.caches[0].path

    @property
    def members(self) -> tuple[LogitCache, ...]:
        """The caches, in the order in which they were given."""
        return self.caches

    @property
    def num_samples(self) -> int:
        """N."""
        return self.caches[0].num_samples

    @property
    def num_views(self) -> int:
        """V."""
        return self.caches[0].num_views

    @property
    def num_outputs(self) -> int:
        """C: classes, or outputs of a regression."""
        return self.caches[0].num_outputs

    @property
    def num_classes(self) -> int:
        """C."""
        return self.num_outputs

    @property
    def labels(self) -> NDArray[Any]:
        """(N,) int64 or (N, T) float32, the same in every cache."""
        return self.caches[0].labels

    @property
    def input_crc32(self) -> NDArray[np.uint32]:
        """(V, N) uint32 of the first cache that recorded them, or zeros."""
        return self._recorded.input_crc32

    def logits(self, indices: ArrayLike | slice, view: ArrayLike = 0) -> NDArray[np.floating]:
        """(B, C) float32: the mean over the teachers; with mean="separate" (B, K, C), those of each.

        Takes the indices and views of `LogitCache.logits`, and raises what that raises.
        """
        tables = [cache.logits(indices, view).astype(np.float32) for cache in self.caches]
        if self.mean == "separate":
            return np.stack(tables, axis=-2)
        if self.mean == "logits":
            return np.average(tables, axis=0, weights=self.weights).astype(np.float32)
        if self._sigmoids:  # a softmax of (z, 0), of which only the difference of both logits is kept
            tables = [np.stack([table, np.zeros_like(table)], axis=-1) for table in tables]
        softmaxes = [softmax(table.astype(np.float64), self.temperature) for table in tables]
        shares = np.average(softmaxes, axis=0, weights=self.weights)
        mean = self.temperature * np.log(np.maximum(shares, np.finfo(np.float64).tiny))
        return (mean[..., 0] - mean[..., 1] if self._sigmoids else mean).astype(np.float32)


def require_agreement(caches: Sequence[LogitCache], sections: Sequence[str]) -> None:
    """Raises MismatchError unless there are two caches or more with equal `sections`, classes and labels."""
    if len(caches) < 2:
        raise MismatchError(f"caches: expected two caches or more, found {len(caches)}")
    first = caches[0]
    for other in caches[1:]:
        require_equal(
            first.manifest.identity,
            other.manifest.identity,
            subject=f"{other.path}: does not go with {first.path}",
            hint=f"They must agree in {', '.join(sections)}.",
            sections=sections,
        )
        if other.num_outputs != first.num_outputs or not np.array_equal(other.labels, first.labels):
            raise MismatchError(f"{other.path}: other classes or labels than {first.path}")


def _shares(weights: Sequence[float], count: int, mean: Mean) -> tuple[float, ...]:
    """Weights that sum to 1. Raises ValueError for those that no mean can have."""
    if mean == "separate":
        raise ValueError('weights: belong to a mean, and mean = "separate" is none')
    if len(weights) != count:
        raise ValueError(f"weights: expected {count}, one for each cache, found {len(weights)}")
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(f"weights: must be 0 or more, and not all 0, found {list(weights)}")
    return tuple(weight / sum(weights) for weight in weights)


def _manifest(
    caches: Sequence[LogitCache], mean: Mean, temperature: float, weights: tuple[float, ...] | None
) -> Manifest:
    """The identity of the mean: of which teachers, at what temperature and with what weights."""
    identity: dict[str, Any] = {name: dict(section) for name, section in caches[0].manifest.identity.items()}
    identity["teacher"] = {
        "outputs": caches[0].num_outputs,
        "mean": mean,
        "temperature": temperature if mean == "probabilities" else None,
        "of": [{"key": cache.manifest.key, **cache.manifest.identity["teacher"]} for cache in caches],
        **({} if weights is None else {"weights": list(weights)}),
    }
    held = caches[0].manifest.encoding
    if isinstance(held, Hidden):  # of whose logits a mean has no head
        kept = {name: value for name, value in identity["encoding"].items() if name not in held.identity}
        identity["encoding"] = {**kept, **Dense("float32").identity}
    return Manifest(identity, {"from": [cache.path.name for cache in caches]})


def one_source(cache: LogitSource | Sequence[LogitCache]) -> LogitSource:
    """A cache or an ensemble as it is, and several caches as an ensemble. Raises TypeError for anything else.

    >>> one_source("teacher.h5")
    Traceback (most recent call last):
    ...
    TypeError: cache: expected an open cache, as decant.LogitCache.open(path) gives, found 'teacher.h5'
    """
    several: list[Any] = list(cache) if isinstance(cache, list | tuple) else [cache]
    wrong = [each for each in several if not hasattr(each, "members")]
    if wrong or not several:
        found = wrong[0] if wrong else cache
        raise TypeError(
            f"cache: expected an open cache, as decant.LogitCache.open(path) gives, found {found!r}"
        )
    require_samples(several)
    return several[0] if len(several) == 1 else Ensemble(several)


def require_samples(caches: Sequence[Any]) -> None:
    """Raises MismatchError for a cache whose samples have several rows each."""
    for cache in caches:
        if getattr(cache, "has_positions", False):
            raise MismatchError(
                f"{cache.path}: has a row for each of {cache.num_positions:,} positions, and not of each sample: "
                "decant.language.TokenDataset reads those of texts, decant.SequenceDataset those of others"
            )
