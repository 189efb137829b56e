"""Libraries that not every recipe needs, and that are installed as an extra."""

from __future__ import annotations

import importlib
from typing import Any

from decant.pipeline.errors import PipelineError


def optional(module: str, extra: str, error: type[PipelineError]) -> Any:
    """The module. Raises `error`, with the command that installs it, where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        if missing.name != module.partition(".")[0]:
            raise
        raise error(f"{module} is not installed; run: pip install 'decant-kd[{extra}]'") from None
