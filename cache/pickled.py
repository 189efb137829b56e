"""Datasets that are pickled, as for workers: the attributes of another version's are others."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from decant.cache.errors import CacheError


class OfOneVersion:
    """Of a dataset: what another version of Decant has pickled is refused in words when it is unpickled. Its attributes
    may be others, and it would fail much later, or read another view without a word.

    >>> import pickle
    >>> class Numbers(OfOneVersion):
    ...     pass
    >>> isinstance(copied := _begun(Numbers, version()), Numbers), copied.__setstate__({"first": 3}), copied.first
    (True, None, 3)
    >>> _begun(Numbers, "0.0.1")
    Traceback (most recent call last):
        ...
    decant.cache.errors.CacheError: Numbers: was pickled by another version of Decant (0.0.1, and this is ...): make ...
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _begun, (type(self), version()), self.__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if _MADE_BY not in self.__dict__:
            raise _other_version(type(self))
        self.__dict__.update(state)

    if not TYPE_CHECKING:  # for which a dataset has the attributes that are written down, and no others

        def __getattr__(self, name: str) -> Any:
            # Before versions were noted: a method that a part of it names is looked for before it has any attribute.
            if not self.__dict__ and not name.startswith("__"):
                raise _other_version(type(self))
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_MADE_BY = "_pickled_by"


@functools.cache
def version() -> str:
    """Of Decant, as it is installed; empty where it is not."""
    from importlib import metadata  # which most runs do not need

    try:
        return metadata.version("decant-kd")
    except metadata.PackageNotFoundError:
        return ""


def _begun(kind: type[OfOneVersion], made_by: str) -> OfOneVersion:
    """An empty object, to which its attributes are given next. Of another version they are not even read: its modules
    may have other names.
    """
    if made_by != version():
        raise _other_version(kind, f" ({made_by}, and this is {version()})")
    made = kind.__new__(kind)
    made.__dict__[_MADE_BY] = made_by
    return made


def _other_version(kind: type[OfOneVersion], which: str = "") -> CacheError:
    return CacheError(
        f"{kind.__name__}: was pickled by another version of Decant{which}: make it anew from its data and its "
        "cache, and keep the path of the cache, not the pickled dataset"
    )
