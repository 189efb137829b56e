"""The examples in the docstrings of `decant.objectives` run, and every public function has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from types import FunctionType

import pytest

from decant import objectives

FUNCTIONS = {
    name: value for name in objectives.__all__ if isinstance(value := getattr(objectives, name), FunctionType)
}


def test_every_public_function_has_an_example() -> None:
    without = [name for name, function in FUNCTIONS.items() if ">>> " not in (inspect.getdoc(function) or "")]
    assert not without


@pytest.mark.parametrize("module", sorted({function.__module__ for function in FUNCTIONS.values()}))
def test_examples_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module))
    assert (failed, tried > 0) == (0, True)
