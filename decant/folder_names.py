"""`cache` and `pipeline`, the names of the two folders, as other names of `decant.cache` and `decant.pipeline`.

Inside the repository `from cache import LogitCache` finds the folder itself. Without this module that would load every
module a second time, with classes of its own: `cache.LogitCache` would not be `decant.LogitCache`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def use_import_package(folder: str) -> None:
    """Makes `folder` and every module below it the module of that name in `decant`."""
    sys.modules[folder] = importlib.import_module(f"decant.{folder}")
    if not any(isinstance(finder, _FolderNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _FolderNames())


class _FolderNames(MetaPathFinder, Loader):
    """Finds `cache.x` and `pipeline.x` as `decant.cache.x` and `decant.pipeline.x`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        folder, _, inner = name.partition(".")
        ours = sys.modules.get(folder)
        if not inner or inner.endswith("__main__") or getattr(ours, "__name__", "") != f"decant.{folder}":
            return None
        return ModuleSpec(name, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"decant.{spec.name}")
        spec.loader_state = module.__spec__  # importlib puts `spec` in its place after this
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run; gives the module its own spec back."""
        spec = module.__spec__
        if spec is not None and spec.loader is self:
            module.__spec__ = spec.loader_state
