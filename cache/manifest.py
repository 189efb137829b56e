"""What a cache holds and where it came from.

A manifest has two parts. `identity` is the question that the logits answer: which teacher, over which data,
through which views, stored how. The key of a cache is the SHA-256 of its identity, so the same question finds
the same file. `info` is what else is worth knowing (batch size, device, versions); it is no part of the key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decant.cache.encodings import Encoding, encoding_of
from decant.cache.errors import Difference, FormatError, MismatchError, shorten

SECTIONS = ("teacher", "data", "views", "encoding")
MAX_BYTES = 60_000  # an HDF5 attribute in an object header ends at 64 KiB
_MAX_DEPTH = 32  # of tables in tables; deeper JSON is no manifest
_MAX_NAMES = 32_768  # bytes of class names kept in full; longer lists are kept as their digest
_LIMITS = {"views": 2**24, "samples": 2**40, "outputs": 2**24}


@dataclass(frozen=True)
class Manifest:
    """`identity` and `info`, both plain JSON. Raises FormatError where identity lacks what the layout
    needs.
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
        unknown = sorted(set(self.identity) - set(SECTIONS))
        if unknown:
            raise FormatError(
                f"manifest: identity has an unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}"
            )
        _ = self.num_views, self.num_samples, self.num_outputs, self.num_targets, self.encoding
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
        info: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """A manifest from the sizes of the tables and whatever else identifies teacher, data, views and
        encoding.

        `num_targets` is None for integer labels (N,), or T for float targets (N, T).
        """
        if isinstance(encoding, Encoding):
            if dtype is not None:
                raise ValueError(f"dtype: belongs to the encoding, which is {encoding}")
            stored = encoding.identity
        else:
            stored = {**(encoding or {}), "dtype": dtype or "float16"}
        identity = {
            "teacher": {**(teacher or {}), "outputs": int(num_outputs)},
            "data": {**(data or {}), "length": int(num_samples), "targets": num_targets},
            "views": {**(views or {}), "count": int(num_views)},
            "encoding": stored,
        }
        return cls(identity, dict(info or {}))

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Reads canonical JSON and nothing else: no NaN, no key twice, no other spelling of the same."""
        try:
            content = json.loads(text.decode("ascii"))
            canonical = _canonical(content)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"manifest: not the JSON of a manifest ({error})") from None
        if canonical != text:
            raise FormatError("manifest: not canonical JSON (sorted keys, no spaces, no NaN)")
        if not isinstance(content, dict) or set(content) != {"identity", "info"}:
            raise FormatError("manifest: must be an object with `identity` and `info`")
        if not isinstance(content["identity"], dict) or not isinstance(content["info"], dict):
            raise FormatError("manifest: `identity` and `info` must be objects")
        return cls(content["identity"], content["info"])

    def to_json(self) -> bytes:
        """Canonical JSON in ASCII: equal content gives equal bytes."""
        try:
            return _canonical({"identity": self.identity, "info": self.info})
        except (TypeError, ValueError) as error:
            raise FormatError(f"manifest: not expressible as JSON ({error})") from None

    def with_views(self, count: int) -> Manifest:
        """The same question for another number of views."""
        return Manifest({**self.identity, "views": {**self.identity["views"], "count": count}}, self.info)

    @property
    def key(self) -> str:
        """SHA-256 of the identity, 64 hexadecimal digits."""
        return hashlib.sha256(_canonical(self.identity)).hexdigest()

    @property
    def num_views(self) -> int:
        return self._size("views", "count", _LIMITS["views"])

    @property
    def num_samples(self) -> int:
        return self._size("data", "length", _LIMITS["samples"])

    @property
    def num_outputs(self) -> int:
        return self._size("teacher", "outputs", _LIMITS["outputs"])

    @property
    def num_targets(self) -> int | None:
        """None where the labels are class indices (N,), T where they are regression targets (N, T)."""
        if self.identity["data"].get("targets") is None:
            return None
        return self._size("data", "targets", _LIMITS["outputs"])

    @property
    def encoding(self) -> Encoding:
        """How the logits are stored."""
        return encoding_of(self.identity["encoding"])

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


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], sections: Sequence[str] = SECTIONS
) -> list[Difference]:
    """Every field of `sections` in which two identities differ, by name; none if their keys agree."""
    return [
        difference
        for name in sorted(sections)
        for difference in _compare(name, expected.get(name), found.get(name))
    ]


def require_equal(
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    *,
    subject: str,
    hint: str,
    sections: Sequence[str] = SECTIONS,
) -> None:
    """Raises MismatchError, with every differing field, both values and then `hint`, if any differs."""
    different = differences(expected, found, sections)
    if different:
        lines = "".join(f"\n  {difference}" for difference in different)
        raise MismatchError(f"{subject}:{lines}\n{hint}", different)


def class_list(names: Sequence[str]) -> list[str] | dict[str, Any]:
    """Class names as an identity holds them: in full, or as count and digest where they are too many."""
    encoded = _canonical(list(names))
    if len(encoded) <= _MAX_NAMES:
        return list(names)
    return {"count": len(names), "sha256": hashlib.sha256(encoded).hexdigest(), "first": list(names[:3])}


def _canonical(content: object) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _compare(path: str, ours: object, theirs: object) -> Iterator[Difference]:
    """Walks both sides down to the leaves that differ; a side without a field counts as None."""
    if _canonical(ours) == _canonical(theirs):
        return
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted(ours.keys() | theirs.keys()):
            inner = f"{path}.{name if name.isprintable() else ascii(name)}"
            if name in ours and name in theirs:
                yield from _compare(inner, ours[name], theirs[name])
            else:
                yield Difference(inner, ours.get(name), theirs.get(name))
    elif isinstance(ours, Sequence) and isinstance(theirs, Sequence) and not isinstance(ours, str):
        if len(ours) != len(theirs):
            yield Difference(f"{path}.length", len(ours), len(theirs))
        for place, pair in enumerate(zip(ours, theirs, strict=False)):
            yield from _compare(f"{path}[{place}]", *pair)
    else:
        yield Difference(path, ours, theirs)


def _too_deep(content: object, levels: int = _MAX_DEPTH) -> bool:
    """Whether tables and lists are nested more than `levels` deep."""
    if isinstance(content, (str, bytes)) or not isinstance(content, (Mapping, Sequence)):
        return False
    inner = content.values() if isinstance(content, Mapping) else content
    return levels == 0 or any(_too_deep(value, levels - 1) for value in inner)
