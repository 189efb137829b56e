"""Random generators that a transform keeps as attributes, as albumentations does: found, and seeded for each sample."""

from __future__ import annotations

import functools
import inspect
import random
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decant.pipeline.support.modules import is_installed

_MOST_OBJECTS = 20_000  # that are looked through
_MOST_ELEMENTS = 256  # of one list or dictionary
_KINDS = (np.random.Generator, np.random.RandomState, random.Random, torch.Generator)
_RUN = ("__call__", "__getitem__", "__getitems__", "forward")
_LEAVES = (str, bytes, int, float, complex, type, types.ModuleType, np.ndarray, torch.Tensor)


def own_generators(*roots: object) -> list[Any]:
    """Every generator that can be reached from `roots` through attributes, containers, partial functions, closures and
    what the user's functions name of their modules, in an order that is the same in each process.

    >>> class Noise:
    ...     def __init__(self):
    ...         self.random = np.random.default_rng()
    >>> [type(found).__name__ for found in own_generators([Noise(), functools.partial(print, Noise())])]
    ['Generator', 'Generator']
    """
    found: list[Any] = []
    seen: dict[int, object] = {}
    todo = list(reversed(roots))
    while todo and len(seen) < _MOST_OBJECTS:
        value = todo.pop()
        if value is None or isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen[id(value)] = value  # which keeps it alive, so that no other object has its id
        if is_generator(value):
            if not _is_global(value):
                found.append(value)
            continue
        todo.extend(reversed(list(_inside(value))))
    return found


def is_generator(value: object) -> bool:
    """Whether a value is a random generator of NumPy, Python or torch."""
    return isinstance(value, _KINDS)


def seed_own(generators: Iterable[Any], bits: list[int]) -> None:
    """Seeds each generator from random bits (16 numbers below 2⁶⁴), each differently."""
    for place, generator in enumerate(generators):
        low, high = bits[3 + place % 13] ^ place, bits[2]
        if isinstance(generator, random.Random):
            generator.seed(low)
        elif isinstance(generator, torch.Generator):
            generator.manual_seed(low >> 1)
        elif isinstance(generator, np.random.RandomState):
            generator.seed([low >> 32, low & 0xFFFFFFFF])
        else:
            _seed_numpy(generator.bit_generator, low, high)


def _seed_numpy(generator: Any, low: int, high: int) -> None:
    """Sets the state of a NumPy bit generator in place, as others may hold it."""
    if type(generator) is np.random.PCG64:  # at a third of the cost
        state = {"state": low << 64 | high, "inc": (high << 64 | low) | 1}
        whole: Any = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}
        generator.state = whole
    else:
        generator.state = type(generator)([low, high]).state


def _is_global(generator: object) -> bool:
    """Whether it is one of the global generators, which are seeded anyway."""
    return (
        generator is torch.default_generator
        or generator is getattr(random, "_inst", None)
        or (generator is getattr(np.random.mtrand, "_rand", None))
    )


def _inside(value: Any) -> Iterator[object]:
    """What an object holds."""
    if isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _of_function(value)
    elif isinstance(value, Mapping):
        if len(value) <= _MOST_ELEMENTS:
            yield from _values(value)
    elif isinstance(value, list | tuple | set | frozenset):
        if len(value) <= _MOST_ELEMENTS:
            yield from value
    else:
        yield from vars(value).values() if hasattr(value, "__dict__") else ()
        its_class: Any = type(value)
        yield from _run_functions(its_class)
        for name in (name for kind in type(value).__mro__ for name in _slots(kind)):
            yield getattr(value, name, None)


def _values(mapping: Mapping[Any, Any]) -> list[object]:
    return list(dict.values(mapping)) if isinstance(mapping, dict) else []


def _of_function(function: types.FunctionType) -> Iterator[object]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            continue
    users = _is_users(function)
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if isinstance(value, (*_KINDS, types.FunctionType)) or (users and callable(value)):
            yield value


def _names(code: types.CodeType) -> Iterator[str]:
    """The global names and attributes that code uses, with those of functions that are written inside of it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _is_users(function: types.FunctionType) -> bool:
    return not is_installed(Path(function.__code__.co_filename))


@functools.cache
def _run_functions(kind: type) -> tuple[types.FunctionType, ...]:
    """The user's methods that run when an object of this class is called or read, and those that they name."""
    found: dict[str, types.FunctionType] = {}
    todo = list(_RUN)
    while todo:
        name = todo.pop(0)
        function = inspect.getattr_static(kind, name, None)
        if name not in found and isinstance(function, types.FunctionType) and _is_users(function):
            found[name] = function
            todo.extend(_names(function.__code__))
    return tuple(found.values())


def _slots(kind: type) -> Iterable[str]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else slots
