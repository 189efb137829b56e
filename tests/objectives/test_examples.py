"""Every public function of `decant.objectives` has an example; `tests/project` runs them."""

from __future__ import annotations

import inspect
from types import FunctionType

from decant import objectives

FUNCTIONS = {
    name: value for name in objectives.__all__ if isinstance(value := getattr(objectives, name), FunctionType)
}


def test_every_public_function_has_an_example() -> None:
    without = [name for name, function in FUNCTIONS.items() if ">>> " not in (inspect.getdoc(function) or "")]
    assert not without
