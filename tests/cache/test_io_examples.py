"""Every public function of `decant.cache.io` has an example, and importing the package is cheap."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import decant.cache.io

MODULES = [f"decant.cache.io.{found.name}" for found in pkgutil.iter_modules(decant.cache.io.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    public = [
        found
        for label, found in vars(module).items()
        if not label.startswith("_") and getattr(found, "__module__", "") == name
    ]
    functions = [found for found in public if inspect.isfunction(found)]
    assert functions or any(inspect.isclass(found) for found in public), name
    assert [found.__name__ for found in functions if ">>>" not in (found.__doc__ or "")] == []


def test_importing_it_loads_no_torch() -> None:
    script = f"import sys, {', '.join(MODULES)}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
