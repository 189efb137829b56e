"""Where modules of the user's are: the files that are no library's, and folders that are searched for them alone.

The working folder and the folder of a recipe may hold files that others put there, such as a `tensorflow.py` that a
library would import where it looks for the real one. So they are no part of `sys.path`: modules in them are found where
a recipe names them, and by code that lies in them, after every other place.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

RAISED = (Exception, SystemExit)
"""What a user's code may raise: anything, and a script that is imported may end the program."""

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LIBRARIES = frozenset(
    {"decant", "jax", "numpy", "tensorflow", "timm", "torch", "torchaudio", "torchvision", "transformers"}
)
"""Libraries wherever they lie, such as a checkout on PYTHONPATH."""


class _UsersFolders(MetaPathFinder):
    """Finds modules in the user's folders, for those who may."""

    def __init__(self) -> None:
        self.folders: list[str] = []
        self.found: set[str] = set()
        """Top-level modules that were imported from them."""
        self._wanted = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or not self.folders or not self._may_find(fullname):
            return None
        spec = PathFinder.find_spec(fullname, self.folders)
        if spec is not None:
            self.found.add(fullname)
        return spec

    @contextlib.contextmanager
    def wanting(self, name: str) -> Iterator[None]:
        """Lets this thread import one module by its name."""
        before, self._wanted.name = getattr(self._wanted, "name", None), name
        try:
            yield
        finally:
            self._wanted.name = before

    def _may_find(self, name: str) -> bool:
        return name in self.found or name == getattr(self._wanted, "name", None) or self._is_asked_by_users()

    def _is_asked_by_users(self) -> bool:
        """Whether the import is a statement of a file in one of the folders."""
        frame = sys._getframe(3)
        while frame is not None and _is_of_import_machinery(frame.f_code.co_filename):
            frame = frame.f_back  # type: ignore[assignment]
        name = "" if frame is None else frame.f_code.co_filename
        if not os.path.isabs(name):
            return False  # text that was compiled, not a file
        path = Path(name)
        return any(path.is_relative_to(folder) for folder in self.folders) and not is_installed(
            path.resolve()
        )


_finder = _UsersFolders()


def search(folder: str | Path) -> None:
    """Has modules of the user's be found in a folder too."""
    where = str(Path(folder).absolute())
    if where not in _finder.folders:
        _finder.folders.append(where)
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def searched() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders, and the modules that were imported from them, for `search_as` in another process."""
    return tuple(_finder.folders), tuple(sorted(_finder.found))


def search_as(folders: Iterable[str], found: Iterable[str]) -> None:
    """Has the same modules be found as in the process that called `searched`."""
    for folder in folders:
        search(folder)
    _finder.found.update(found)


def import_by_name(module: str) -> ModuleType:
    """The module, imported from wherever it is found. Raises whatever its code does, and ImportError."""
    with _finder.wanting(module.partition(".")[0]):
        return importlib.import_module(module)


def specs_of(module: str) -> tuple[ModuleSpec, ...]:
    """The specs of the packages around a module and of the module, in that order; none where it is not found. Nothing
    is imported.
    """
    top, *inner = module.split(".")
    try:
        with _finder.wanting(top):
            spec = importlib.util.find_spec(top) if top else None
        specs = [spec]
        for part in inner:
            if spec is None or spec.submodule_search_locations is None:
                return ()
            spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
            specs.append(spec)
    except RAISED:  # a finder of some library's, or a module without a spec
        return ()
    finally:
        if top not in sys.modules:
            _finder.found.discard(top)
    return () if spec is None else tuple(one for one in specs if one is not None)


def source_of(module: str) -> Path | None:
    """The file of a module; None where there is no such module, or no source of it. Nothing is imported."""
    specs = specs_of(module)
    origin = specs[-1].origin if specs else None
    return None if origin is None or not origin.endswith(".py") else Path(origin).resolve()


def belongs_to_user(specs: Sequence[ModuleSpec]) -> bool:
    """Whether a module, and every package around it that has a file, is the user's own.

    >>> belongs_to_user(specs_of("json.decoder")), belongs_to_user(specs_of("sys"))
    (False, False)
    """
    if not specs or specs[0].name in _LIBRARIES or specs[0].name in sys.stdlib_module_names:
        return False
    files = [spec.origin for spec in specs if spec.has_location and spec.origin]  # a namespace has none
    return not any(is_installed(Path(file).resolve()) for file in files)


@functools.cache
def _shipped() -> tuple[Path, ...]:
    """Folders of Python's library and of this package: `decant`, and the two folders that it links to."""
    paths = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    own = Path(*sys.modules["decant"].__path__)
    return tuple({path.resolve() for path in (*paths, own, own / "cache", own / "pipeline")})


def is_installed(path: Path) -> bool:
    """Whether a file is of Python's library, of an installed package or of this one, and so not the user's own.

    >>> is_installed(Path(os.__file__)), is_installed(Path("mine.py"))
    (True, False)
    """
    return bool(_INSTALLED & set(path.parts)) or any(path.is_relative_to(folder) for folder in _shipped())


def _is_of_import_machinery(file: str) -> bool:
    return file.startswith("<frozen importlib") or file == importlib.__file__
