"""The manifest of a cache: what it holds and where that came from.

A manifest has two parts. `identity` says which teacher, which data, which views and which encoding the logits are of.
The key of a cache is the SHA-256 of its identity: whoever wants the same logits finds the same file. `info` records
what else is worth knowing (batch size, device, versions), and is no part of the key.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import numpy as np

from decant.cache.encodings import Encoding, encoding_of
from decant.cache.errors import FormatError, shorten
from decant.cache.io.redaction import without_secrets
from decant.cache.positions import Description, Positions

SECTIONS = ("teacher", "data", "views", "encoding")
POSITIONS = "positions"
"""A fifth section, of caches whose samples have several positions each."""
MAX_BYTES = 60_000  # an HDF5 attribute in an object header ends at 64 KiB
_MAX_DEPTH = 32  # of tables in tables; deeper JSON is no manifest
_MAX_NAMES = 32_768  # bytes of class names kept in full; longer lists are kept as their digest
_LIMITS = {"views": 2**24, "samples": 2**40, "outputs": 2**24}


@dataclass(frozen=True)
class Manifest:
    """`identity` and `info` of a cache, both plain JSON.

    Raises FormatError where `identity` lacks a size or the encoding, or holds what cannot be.

    >>> manifest = Manifest.build(num_samples=50_000, num_outputs=100, num_views=4, data={"name": "cifar100"})
    >>> manifest.num_samples, manifest.num_views, manifest.dtype
    (50000, 4, dtype('float16'))
    >>> manifest.key[:16]
    'b7b21d0c2250e562'
    >>> Manifest.from_json(manifest.to_json()) == manifest
    True
    """

    identity: Mapping[str, Any]
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if _too_deep(self.identity) or _too_deep(self.info):
            raise FormatError(f"manifest: nested more than {_MAX_DEPTH} deep")
        for section in SECTIONS:
            if not isinstance(self.identity.get(section), Mapping):
                raise FormatError(
                    f"manifest: identity.{section} must be a table, found {self.identity.get(section)!r}"
                )
        unknown = sorted(set(self.identity) - {*SECTIONS, POSITIONS})
        if unknown:
            raise FormatError(
                f"manifest: identity has an unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}"
            )
        _ = self.num_views, self.num_samples, self.num_targets, self.positions
        self.encoding.check_outputs(self.num_outputs)
        size = len(self.to_json())
        if size > MAX_BYTES:
            raise FormatError(f"manifest: {size:,} bytes of JSON, the format holds at most {MAX_BYTES:,}")

    @classmethod
    def build(
        cls,
        *,
        num_samples: int,
        num_outputs: int,
        num_views: int = 1,
        dtype: str | None = None,
        num_targets: int | None = None,
        teacher: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        views: Mapping[str, Any] | None = None,
        encoding: Encoding | Mapping[str, Any] | None = None,
        positions: Positions | Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Makes a manifest from the sizes of the tables, and what else identifies teacher, data, views and encoding.

        num_targets: None for integer labels (N,), T for float targets (N, T). encoding: an `Encoding`, as
        `decant.encodings.Dense("float32")`; or fields of `identity.encoding`: without a `kind` logits are dense and
        have `dtype` (by default "float16"). positions: where samples have several positions each, what `Positions.of`
        makes of their lengths, or its `identity`. A cache is made to be shared: passwords and tokens in texts are left
        out, see `cache.io.redaction`. Raises FormatError; ValueError for an `Encoding` with a `dtype` beside.

        >>> from decant.cache.encodings import Dense
        >>> one = Manifest.build(num_samples=10, num_outputs=2, dtype="float32")
        >>> one == Manifest.build(num_samples=10, num_outputs=2, encoding=Dense("float32"))
        True
        """
        if isinstance(encoding, Encoding):
            if dtype is not None:
                raise ValueError(f"dtype: belongs to the encoding, which is {encoding}")
            stored = encoding.identity
        else:
            if not isinstance(encoding, Mapping | None):
                raise ValueError(
                    f"encoding: expected one of decant.encodings, or fields of it, found {encoding!r}"
                )
            stored = dict(encoding or {})
            if "kind" not in stored and (dtype is not None or "dtype" not in stored):
                stored["dtype"] = dtype or "float16"
        for content in (teacher, data, views, info):
            if _too_deep(content or {}):
                raise FormatError(f"manifest: nested more than {_MAX_DEPTH} deep")
        identity: dict[str, Any] = {
            "teacher": {**without_secrets(teacher or {}), "outputs": _size("num_outputs", num_outputs)},
            "data": {
                **without_secrets(data or {}),
                "length": _size("num_samples", num_samples),
                "targets": num_targets,
            },
            "views": {**without_secrets(views or {}), "count": _size("num_views", num_views)},
            "encoding": stored,
        }
        if positions is not None:
            described = positions.identity if isinstance(positions, Positions) else positions
            identity[POSITIONS] = without_secrets(described)
        return cls(identity, without_secrets(info or {}))

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Reads what `to_json` writes. Raises FormatError for anything else: NaN, a key twice, other spacing."""
        try:
            content = json.loads(text.decode("ascii"))
            as_written = canonical(content)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"manifest: not the JSON of a manifest ({error})") from None
        if as_written != text:
            raise FormatError("manifest: not canonical JSON (sorted keys, no spaces, no NaN)")
        if not isinstance(content, dict) or set(content) != {"identity", "info"}:
            raise FormatError("manifest: must be an object with `identity` and `info`")
        if not isinstance(content["identity"], dict) or not isinstance(content["info"], dict):
            raise FormatError("manifest: `identity` and `info` must be objects")
        return cls(content["identity"], content["info"])

    def to_json(self) -> bytes:
        """Canonical JSON in ASCII: equal content gives equal bytes."""
        try:
            return canonical({"identity": self.identity, "info": self.info})
        except (TypeError, ValueError) as error:
            raise FormatError(f"manifest: not expressible as JSON ({error})") from None

    def with_views(self, count: int) -> Manifest:
        """A copy with another number of views."""
        return Manifest({**self.identity, "views": {**self.identity["views"], "count": count}}, self.info)

    @property
    def key(self) -> str:
        """SHA-256 of the identity, 64 hexadecimal digits."""
        return hashlib.sha256(canonical(self.identity)).hexdigest()

    @property
    def num_views(self) -> int:
        """V."""
        return self._size("views", "count", _LIMITS["views"])

    @property
    def num_samples(self) -> int:
        """N."""
        return self._size("data", "length", _LIMITS["samples"])

    @property
    def num_outputs(self) -> int:
        """C: classes, or outputs of a regression."""
        return self._size("teacher", "outputs", _LIMITS["outputs"])

    @property
    def num_targets(self) -> int | None:
        """None where the labels are class indices (N,), T where they are floats (N, T): targets of a regression, or 0
        and 1 for each of several sigmoids.
        """
        if self.identity["data"].get("targets") is None:
            return None
        return self._size("data", "targets", _LIMITS["outputs"])

    @property
    def has_sigmoids(self) -> bool:
        """Whether each output is the logit of a sigmoid of its own, and not one of a softmax: data.task is "binary" or
        "multilabel", and there is a label for each output.
        """
        task = self.identity["data"].get("task")
        return task in ("binary", "multilabel") and self.num_outputs == (self.num_targets or 1)

    @property
    def encoding(self) -> Encoding:
        """How the logits are stored."""
        return encoding_of(self.identity["encoding"])

    @property
    def positions(self) -> Description | None:
        """What the identity says of the samples' positions; None where a sample is one row."""
        if POSITIONS not in self.identity:
            return None
        return Description.read(self.identity[POSITIONS], self.num_samples)

    @property
    def num_rows(self) -> int:
        """Rows of one view: N, or the positions of all samples together."""
        return self.num_samples if self.positions is None else self.positions.axis.count

    @property
    def format_version(self) -> int:
        """The first version of the file format whose readers know such a cache."""
        return max(self.encoding.format_version, 1 if self.positions is None else 2)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Little-endian dtype of the logits that are read."""
        return self.encoding.logits_dtype

    def _size(self, section: str, name: str, limit: int) -> int:
        value = self.identity[section].get(name)
        if type(value) is not int or not 1 <= value <= limit:
            raise FormatError(
                f"manifest: identity.{section}.{name} must be 1 to {limit:,}, found {shorten(value)}"
            )
        return value


def class_list(names: Sequence[str]) -> list[str] | dict[str, Any]:
    """Class names as an identity holds them: in full, or as count and SHA-256 where they are too long for a header.

    >>> class_list(["cat", "dog"])
    ['cat', 'dog']
    """
    encoded = canonical(list(names))
    if len(encoded) <= _MAX_NAMES:
        return list(names)
    return {"count": len(names), "sha256": hashlib.sha256(encoded).hexdigest(), "first": list(names[:3])}


def canonical(content: object) -> bytes:
    """The JSON of a part of a manifest, the same for the same content.

    >>> canonical({"seed": 0, "count": 2})
    b'{"count":2,"seed":0}'
    """
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _size(name: str, value: SupportsIndex) -> int:
    """As an int. Raises FormatError for texts and floats."""
    try:
        return operator.index(value)
    except TypeError:
        raise FormatError(f"manifest: {name}: expected a whole number, found {shorten(value)}") from None


def _too_deep(content: object, levels: int = _MAX_DEPTH) -> bool:
    """Whether tables and lists are nested more than `levels` deep."""
    if isinstance(content, (str, bytes)) or not isinstance(content, (Mapping, Sequence)):
        return False
    inner = content.values() if isinstance(content, Mapping) else content
    return levels == 0 or any(_too_deep(value, levels - 1) for value in inner)
