"""The examples in the docstrings of both packages run as they are written."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.helpers.extras import needs
from tests.helpers.imports import sources

WITH_EXAMPLES = [name for name, path in sources().items() if ">>> " in path.read_text("utf-8")]
LIBRARIES = ("datasets", "lightning", "timm", "transformers", "trl")
"""What a module of this name in decant.pipeline.integrations needs."""


def _marks(module: str) -> list[pytest.MarkDecorator]:
    room, _, name = module.rpartition(".")
    return needs(name) if room.endswith(".integrations") and name in LIBRARIES else []


def test_there_are_examples() -> None:
    assert WITH_EXAMPLES


@pytest.mark.parametrize("module", [pytest.param(name, marks=_marks(name)) for name in WITH_EXAMPLES])
def test_examples_run(module: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert (failed, tried > 0) == (0, True)
