"""Tests that need a library of the extra `integrations`: left out with the reason where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., object])
WITH_DEV = ("sklearn", "transformers")
"""What `make test` has installed, of the libraries that tests say they need: such tests run there, and once."""


def needs(*libraries: str) -> list[pytest.MarkDecorator]:
    """The marks of a test, or of a module as `pytestmark`, that needs these libraries.

    Libraries warn of each other's and of their own old ways, which is not ours to mend: their warnings are no errors.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    beside = [name for name in libraries if name not in WITH_DEV]
    return [
        *([pytest.mark.integrations] if beside else []),
        pytest.mark.skipif(
            bool(missing), reason=f"{', '.join(missing)}: not installed; make test-integrations installs them"
        ),
        pytest.mark.filterwarnings("default"),
    ]


def needing(*libraries: str) -> Callable[[_Test], _Test]:
    """Gives one test the marks of `needs`."""

    def mark(test: _Test) -> _Test:
        for each in needs(*libraries):
            test = each(test)
        return test

    return mark
