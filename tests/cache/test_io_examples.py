"""The examples in the docstrings of `decant.cache.io` run, every public function there has one, and importing it is
cheap.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import decant.cache.io

MODULES = [f"decant.cache.io.{found.name}" for found in pkgutil.iter_modules(decant.cache.io.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
