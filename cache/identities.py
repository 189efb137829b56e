"""Identities of caches compared: every field in which two differ, with both values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from decant.cache.errors import Difference, MismatchError
from decant.cache.manifest import POSITIONS, SECTIONS, canonical


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any], sections: Sequence[str] = (*SECTIONS, POSITIONS)
) -> list[Difference]:
    """Every field of `sections` in which two identities differ, in order of their names; none if their keys agree.

    >>> from decant.cache import Manifest
    >>> first = Manifest.build(num_samples=10, num_outputs=2, views={"seed": 0}).identity
    >>> second = Manifest.build(num_samples=10, num_outputs=2, views={"seed": 1}).identity
    >>> print(*differences(first, second))
    views.seed: expected 0, found 1
    """
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
    sections: Sequence[str] = (*SECTIONS, POSITIONS),
) -> None:
    """Raises MismatchError where two identities differ in `sections`.

    The message begins with `subject`, names every field that differs with both values, and ends with `hint`.

    >>> from decant.cache import Manifest
    >>> first = Manifest.build(num_samples=10, num_outputs=2).identity
    >>> second = Manifest.build(num_samples=20, num_outputs=2).identity
    >>> require_equal(first, second, subject="toy.h5: other data", hint="Build it again.")
    Traceback (most recent call last):
        ...
    decant.cache.errors.MismatchError: toy.h5: other data:
      data.length: expected 10, found 20
    Build it again.
    """
    different = differences(expected, found, sections)
    if different:
        lines = "".join(f"\n  {difference}" for difference in different)
        raise MismatchError(f"{subject}:{lines}\n{hint}", different)


def _compare(path: str, ours: object, theirs: object) -> Iterator[Difference]:
    """Walks both sides down to the leaves that differ; a side without a field counts as None."""
    if canonical(ours) == canonical(theirs):
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
