"""Tests that need a library of the extra `integrations`: left out with the reason where it is not installed."""

from __future__ import annotations

import importlib.util

import pytest


def needs(*libraries: str) -> list[pytest.MarkDecorator]:
    """The marks of a test, or of a module as `pytestmark`, that needs these libraries.

    Libraries warn of each other's and of their own old ways, which is not ours to mend: their warnings are no errors.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    return [
        pytest.mark.integrations,
        pytest.mark.skipif(
            bool(missing), reason=f"{', '.join(missing)}: not installed; make test-integrations installs them"
        ),
        pytest.mark.filterwarnings("default"),
    ]
