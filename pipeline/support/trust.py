"""Which functions a file may have run, `package.module:name`.

A recipe is a script of the user's: it may name functions of the user's modules. A run folder is data, which others may
have made: a function that it names runs only where its source here is what the run recorded when it was made. Functions
of Python and of installed libraries, some of which load or run further code, are refused in both. `--trust` lets
everything run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from decant.pipeline.support import modules
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import code_sha256

TRUST = "--trust"


class RefusedError(Exception):
    """A function that must not run; the message says why, and how to overrule it."""


class MissingError(Exception):
    """A module that has no such name."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module.__name__)
        self.module = module


@dataclass
class _Names:
    """What this process knows of names of functions: where they came from, and which of them ran."""

    everything: bool = False
    announced: bool = False
    """Whether it is said which functions run."""
    own: set[str] = field(default_factory=set)
    """Named by a recipe of the user's."""
    by_runs: dict[str, dict[Path, str | None]] = field(default_factory=dict)
    """Named by run folders, each with the digest of the source that it recorded."""
    permitted: set[str] = field(default_factory=set)


_names = _Names()


def trust_everything() -> None:
    """Lets every function run that a file names in this process: what `--trust` does."""
    _names.everything = True


def announce() -> None:
    """Has it said, from now on and in this process, which functions run that files name: what a command does."""
    _names.announced = True


def trusts_everything() -> bool:
    """Whether `--trust` was given."""
    return _names.everything


def named_by_recipe(names: Iterable[str]) -> None:
    """Notes that a recipe of the user's names these functions."""
    _names.own.update(name for name in names if ":" in name)


def named_by_run(folder: Path, names: Iterable[str], recorded: Mapping[str, str]) -> None:
    """Notes that a run folder names these functions, and the digests (`code_sha256`) that it recorded of some."""
    for name in names:
        if ":" in name:
            _names.by_runs.setdefault(name, {})[folder.resolve()] = recorded.get(name)


def forget() -> None:
    """Forgets every name, and `--trust`, as in a new process."""
    _names.everything = _names.announced = False
    for known in (_names.own, _names.by_runs, _names.permitted):
        known.clear()


class Permissions:
    """What this process may run, and where it finds modules; unpickled in another process, that one may and does too.

    >>> import pickle
    >>> _ = pickle.loads(pickle.dumps(Permissions()))
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_over, (_names, modules.searched())


def _take_over(names: _Names, searched: tuple[tuple[str, ...], tuple[str, ...]]) -> Permissions:
    _names.everything = names.everything
    _names.own, _names.by_runs, _names.permitted = names.own, names.by_runs, names.permitted
    modules.search_as(*searched)
    return Permissions()


def load(name: str) -> Any:
    """What `package.module:name` stands for, once it may run. A command says once which function runs, and from where.

    Raises RefusedError, with the reason in words, where it may not; MissingError where the module has no such name;
    and whatever importing the module raises.
    """
    module_name, _, inner = name.partition(":")
    free = _names.everything or name in _names.permitted
    if not free:
        _check_source(name, modules.specs_of(module_name))
    module = modules.import_by_name(module_name)
    if not free:
        _check_module(module)
    value = getattr(module, inner, None)
    if value is None:
        raise MissingError(module)
    if not callable(value):
        return value
    if not free:
        _check_definition(name, module, value)
    if name not in _names.permitted:
        if _names.announced:
            say_once(f"runs {name} from {_place(module)}")
        _names.permitted.add(name)
    return value


def _is_data(name: str) -> bool:
    """Whether run folders name a function, and no recipe of the user's does."""
    return name in _names.by_runs and name not in _names.own


def _check_source(name: str, specs: tuple[ModuleSpec, ...]) -> None:
    """Raises RefusedError for what must not even be imported."""
    top = modules.specs_of(name.partition(":")[0].partition(".")[0])
    if top and not modules.belongs_to_user(top):
        raise _of_library(top[0].name)
    if specs and not modules.belongs_to_user(specs):
        raise _of_library(specs[-1].name)
    if _is_data(name) and specs:
        _check_recorded(name, Path(specs[-1].origin or ""))


def _check_recorded(name: str, source: Path) -> None:
    """Raises RefusedError where the source of a function is not what a run recorded, or came with the run."""
    recorded = _names.by_runs[name]
    folders = [folder for folder in recorded if source.resolve().is_relative_to(folder)]
    if folders:
        raise _refusal(f"{name} lies in the run folder {folders[0]} itself, which is data")
    known = {sha256 for sha256 in recorded.values() if sha256 is not None}
    if not known:
        run = next(iter(recorded))
        raise _refusal(f"the run {run} names it, and did not record the code that it was made with")
    if code_sha256(name) not in known:
        raise _refusal("its code is not what the run recorded when it was made")


def _check_module(module: ModuleType) -> None:
    """Raises RefusedError where an imported module is not the user's, such as `os.path`."""
    spec = getattr(module, "__spec__", None)
    file = getattr(module, "__file__", None)
    if spec is not None and not modules.belongs_to_user((spec,)):
        raise _of_library(spec.name)
    if file is not None and modules.is_installed(Path(file).resolve()):
        raise _of_library(module.__name__)


def _check_definition(name: str, module: ModuleType, value: Any) -> None:
    """Raises RefusedError where a function or class is not the user's; where data name it, also where it is not
    defined in that very module.
    """
    where = _defined_in(value)
    if _is_data(name) and where != module.__name__:
        raise _refusal(f"it is not defined in {module.__name__}, but in {where or 'no module'}")
    if where is None or where == module.__name__:
        return
    if where.partition(".")[0] == module.__name__.partition(".")[0]:
        return
    if not modules.belongs_to_user(modules.specs_of(where)):
        raise _of_library(where)


def _defined_in(value: Any) -> str | None:
    """The name of the module that defines a function or class; None of any other object."""
    while isinstance(value, functools.partial):
        value = value.func
    value = inspect.unwrap(getattr(value, "__func__", value))
    if inspect.isfunction(value):
        return str(value.__globals__.get("__name__"))
    if isinstance(value, type) or inspect.isroutine(value):
        owner = value if isinstance(value, type) else getattr(value, "__objclass__", value)
        return str(getattr(owner, "__module__", None) or "builtins")
    return None


def _of_library(module: str) -> RefusedError:
    return _refusal(
        f"{module} is a library, and libraries can load and run further code; name a function of a module of your own"
    )


def _refusal(reason: str) -> RefusedError:
    return RefusedError(f"{reason}; {TRUST} runs it all the same")


def _place(module: ModuleType) -> str:
    """The file of a module as a message shows it: from the working folder on, where it lies below that."""
    file = getattr(module, "__file__", None)
    if file is None:
        return "a built-in module"
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
