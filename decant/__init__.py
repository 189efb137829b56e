"""Decant: distil a network without running the teacher twice.

Every public name can be had from here; each is imported when it is first used, so that `import decant` is quick and
loads neither torch nor h5py.

>>> import decant
>>> manifest = decant.Manifest.build(num_samples=2, num_outputs=3)
>>> manifest.num_samples, manifest.num_outputs
(2, 3)
"""

import os
import sys

if sys.argv[:1] == ["-m"] and "decant" in sys.orig_argv and not sys.flags.safe_path:
    # `python -m decant` looks for every module in the working folder first, where others may have put files.
    _first = sys.path.pop(0)
    if os.path.realpath(_first) == os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
        sys.path.append(_first)  # this package lies there

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decant import integrations as integrations
    from decant.cache import (
        CacheError,
        Ensemble,
        LogitCache,
        LogitCacheWriter,
        Manifest,
        Positions,
        SequenceDataset,
        SoftLabelDataset,
        SoftLabelStream,
        Store,
        attach,
        input_crc32,
    )
    from decant.cache import encodings as encodings
    from decant.pipeline import language as language
    from decant.pipeline import objectives as objectives
    from decant.pipeline.own_loop import Views, cache_logits
    from decant.pipeline.own_loop import operations as views
    from decant.pipeline.phases.recipe_dataset import recipe_dataset

__all__ = [
    "CacheError",
    "Ensemble",
    "LogitCache",
    "LogitCacheWriter",
    "Manifest",
    "Positions",
    "SequenceDataset",
    "SoftLabelDataset",
    "SoftLabelStream",
    "Store",
    "Views",
    "attach",
    "cache_logits",
    "encodings",
    "input_crc32",
    "integrations",
    "language",
    "objectives",
    "recipe_dataset",
    "views",
]

_MODULES = {
    "encodings": "decant.cache.encodings",
    "integrations": "decant.integrations",
    "language": "decant.pipeline.language",
    "objectives": "decant.pipeline.objectives",
    "views": "decant.pipeline.own_loop.operations",
}
_OF_PIPELINE = {
    "Views": "decant.pipeline.own_loop",
    "cache_logits": "decant.pipeline.own_loop",
    "recipe_dataset": "decant.pipeline.phases.recipe_dataset",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _OF_PIPELINE:
        return getattr(importlib.import_module(_OF_PIPELINE[name]), name)
    if name in __all__:
        return getattr(importlib.import_module("decant.cache"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
