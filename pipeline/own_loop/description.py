"""What tells a transform or a dataset of one's own from another: how it reads, the digest of its code, and probes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decant.pipeline.own_loop.operations import ViewOperation
from decant.pipeline.own_loop.own_generators import is_generator
from decant.pipeline.support.modules import is_installed
from decant.pipeline.support.source_code import code_sha256

_MOST_TEXT = 4_000
_DEPTH = 8
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe(value: object) -> list[str]:
    """A transform in lines that are the same in each process: the repr of a library's, class and attributes of one of
    the user's, functions with their defaults and what they enclose. Long ones end in a digest.

    >>> describe([torch.nn.Identity(), functools.partial(max, 3)])
    ['[Identity(), partial(max, 3)]']
    """
    text = _words(value, _DEPTH)
    lines = [line.strip() for line in text.splitlines()]
    if len(text) <= _MOST_TEXT:
        return lines
    return [text[:_MOST_TEXT], f"… sha256:{hashlib.sha256(text.encode()).hexdigest()}"]


def read_of(value: object) -> str:
    """`repr` without addresses in memory, which differ in each process.

    >>> read_of(object())
    '<object object>'
    """
    return _ADDRESS.sub("", repr(value))


def code_of(value: Any) -> str | None:
    """SHA-256 of the source of a user's function or class, with all that it uses of the user's own modules; None for
    a library's, and where there is no source.
    """
    name = getattr(value, "__qualname__", "").partition(".")[0]
    module = getattr(value, "__module__", None)
    if not name or not module:
        return None
    try:
        path = inspect.getsourcefile(value)
        if path is None or is_installed(Path(path).resolve()):
            return None
        if module != "__main__" and "<" not in name:
            found = code_sha256(f"{module}:{name}")
            if found is not None:
                return found
        return hashlib.sha256(inspect.getsource(value).encode()).hexdigest()
    except (OSError, TypeError, SyntaxError):
        code = getattr(value, "__code__", None)
        return (
            None if code is None else hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()
        )


def class_name(value: object) -> str:
    """`module.Class` of an object, `module.function` of a function."""
    named = value if hasattr(value, "__qualname__") else type(value)
    module = getattr(named, "__module__", "") or ""
    return f"{module}.{getattr(named, '__qualname__', named)}".removeprefix("builtins.")


def codes(value: object) -> dict[str, str]:
    """The digest of the code of each function and class of the user's in a transform, by their names."""
    found: dict[str, str] = {}
    _collect(value, found, set(), _DEPTH)
    return dict(sorted(found.items()))


def _words(value: Any, depth: int) -> str:
    if depth == 0 or value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return read_of(value)
    if isinstance(value, np.ndarray | torch.Tensor):
        return _array(value)
    if isinstance(value, Mapping):
        inner = sorted(f"{_words(key, depth - 1)}: {_words(each, depth - 1)}" for key, each in value.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, list | tuple | set | frozenset):
        words = [_words(each, depth - 1) for each in value]
        return f"[{', '.join(sorted(words) if isinstance(value, set | frozenset) else words)}]"
    if isinstance(value, functools.partial):
        named = [f"{name}={_words(each, depth - 1)}" for name, each in sorted(value.keywords.items())]
        given = [_words(value.func, depth), *(_words(each, depth - 1) for each in value.args), *named]
        return f"partial({', '.join(given)})"
    if isinstance(value, types.MethodType):
        return f"{_words(value.__self__, depth - 1)}.{value.__func__.__name__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return _function(value, depth)
    return _object(value, depth)


def _object(value: Any, depth: int) -> str:
    """Of a class that says how it reads, that; else its name and attributes."""
    if isinstance(value, ViewOperation) or (
        type(value).__repr__ is not object.__repr__ and not _is_users(type(value))
    ):
        return read_of(value)
    attributes = {
        name: each
        for name, each in getattr(value, "__dict__", {}).items()
        if not is_generator(each) and not (name.startswith("_") and not _has_content(each))
    }
    inner = [f"{name}={_words(each, depth - 1)}" for name, each in sorted(attributes.items())]
    return f"{type(value).__qualname__}({', '.join(inner)})"


def _function(value: Any, depth: int) -> str:
    name = value.__qualname__
    if not isinstance(value, types.FunctionType):
        return name
    enclosed = []
    for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            enclosed.append(f"{variable}={_words(cell.cell_contents, depth - 1)}")
        except ValueError:  # not filled yet
            continue
    defaults = [_words(each, depth - 1) for each in value.__defaults__ or ()]
    return f"{name}({', '.join([*defaults, *enclosed])})" if defaults or enclosed else name


def _array(value: Any) -> str:
    array = (
        value.detach().cpu().contiguous() if isinstance(value, torch.Tensor) else np.ascontiguousarray(value)
    )
    if array.size if isinstance(array, np.ndarray) else array.numel():
        if isinstance(array, torch.Tensor):
            array = array.reshape(-1).view(torch.uint8).numpy()
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    else:
        digest = ""
    return f"{type(value).__name__}{tuple(value.shape)}:{digest}"


def _is_users(kind: type) -> bool:
    try:
        path = inspect.getsourcefile(kind)
    except (OSError, TypeError):
        return False
    return path is not None and not is_installed(Path(path).resolve())


def _collect(value: Any, found: dict[str, str], seen: set[int], depth: int) -> None:
    if depth == 0 or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, functools.partial):
        parts: list[Any] = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.MethodType):
        parts = [value.__self__]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, types.FunctionType | type):
        code = code_of(value)
        if code is not None:
            found[class_name(value)] = code
        cells = getattr(value, "__closure__", None) or ()
        parts = [cell.cell_contents for cell in cells if _is_filled(cell)]
    elif (
        isinstance(value, bool | int | float | complex | str | bytes | np.ndarray | torch.Tensor)
        or value is None
    ):
        return
    else:
        parts = [type(value), *getattr(value, "__dict__", {}).values()]
    for part in parts:
        _collect(part, found, seen, depth - 1)


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _has_content(value: object) -> bool:
    """Whether a private attribute says anything: not None, and no empty container, as those of a module are."""
    return value is not None and not (isinstance(value, Mapping | list | tuple | set) and not value)
