"""Distillation in the training loops of other libraries: `decant.integrations.lightning`, `.transformers`, `.trl`,
`.timm` and `.datasets`. Each needs the library that it is named after, and is imported when it is first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

_LIBRARIES = ("datasets", "lightning", "timm", "transformers", "trl")


def __getattr__(name: str) -> ModuleType:
    if name in _LIBRARIES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LIBRARIES])
