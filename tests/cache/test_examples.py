"""Every function and every class that `decant.cache` offers shows in an example how it is used; the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

from decant import cache, encodings

MODULES = [
    cache.__name__,
    *(found.name for found in pkgutil.walk_packages(cache.__path__, f"{cache.__name__}.") if not found.ispkg),
    encodings.__name__,
]
RETURNED = {"Leftover", "LogitSource", "RegressionSummary", "Summary", "Unfinished"}
"""Classes that a caller only gets: the examples are with the functions that return them."""


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("name", [*cache.__all__, "Dense"])
def test_what_is_offered_has_an_example(name: str) -> None:
    found = getattr(encodings if name == "Dense" else cache, name)
    if not (inspect.isclass(found) or inspect.isfunction(found)) or name in RETURNED:
        return
    if inspect.isclass(found) and issubclass(found, Exception):
        found = importlib.import_module(found.__module__)  # the tree of errors has one for all
    assert ">>> " in (found.__doc__ or ""), name
