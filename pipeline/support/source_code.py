"""The fingerprint of a user's code: of a function that a recipe names, and of what it uses of the user's own modules.

A changed function is another function, so networks and what comes of them are made again. Only the definitions that the
function can reach count: another function in the same file may change, and so may comments and blank lines.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from decant.pipeline.support.modules import is_installed, source_of, specs_of
from decant.pipeline.support.notices import say_once

_LIBRARIES = ("torchvision:", "timm:", "transformers:", "hf:")
"""What names begin with that are a library's own, and no function of the user's."""
_BY_NAME = frozenset({"globals", "locals", "vars", "eval", "exec", "__import__", "__name__"})
"""Names by which code may reach any definition of its module."""


def is_users(name: str) -> bool:
    """Whether a name in a recipe is `package.module:function`, and so code of the user's.

    >>> [is_users(name) for name in ("conv", "timm:vit_tiny_patch16_224", "mine:network")]
    [False, False, True]
    """
    return ":" in name and not name.startswith(_LIBRARIES)


def code_sha256(name: str) -> str | None:
    """SHA-256 of the source of `package.module:function` and of all that it uses of modules in the same project: those
    below the folder that its package lies in, or below the working folder. Of an installed package it is the file
    alone. Nothing is imported.

    None for a name that is not the user's, and where there is no source to read, which is said once.

    >>> code_sha256("conv") is None
    True
    """
    if not is_users(name):
        return None
    module, _, function = name.partition(":")
    path = source_of(module)
    if path is None:
        return None
    if is_installed(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()  # what it imports changes with its version
    project = _Project(_roots(module, path))
    project.use(module, [function])
    return project.digest()


def warn_without_source(name: str) -> None:
    """Says once on stderr that changes of a user's function cannot be noticed, where its source cannot be read."""
    if is_users(name) and code_sha256(name) is None:
        say_once(
            f"warning: {name}: its source cannot be read, so a change of it is not noticed: after one, delete what "
            "was made with it"
        )


@dataclass
class _Module:
    """The statements of a file, and which of them define a name."""

    name: str
    is_package: bool
    lines: list[str]
    statements: list[ast.stmt]
    definitions: dict[str, list[int]] = field(default_factory=dict)
    always: list[int] = field(default_factory=list)
    """Statements that do something when the module is imported."""

    @classmethod
    @functools.lru_cache(
        maxsize=32
    )  # a process asks for the same code again and again, and reading it takes longest
    def read(cls, name: str, is_package: bool, content: bytes) -> _Module:
        """Nobody may change it. Raises SyntaxError, ValueError."""
        tree = ast.parse(content)
        module = cls(name, is_package, _without_comments(content), [])
        for statement in tree.body:
            if _is_main_guard(statement) or _is_docstring(statement):
                continue
            index = len(module.statements)
            module.statements.append(statement)
            defined = set(_defined(statement))
            for one in defined:
                module.definitions.setdefault(one, []).append(index)
            simple = (
                ast.FunctionDef
                | ast.AsyncFunctionDef
                | ast.ClassDef
                | ast.Assign
                | ast.AnnAssign
                | ast.Import
            )
            if not isinstance(statement, simple | ast.ImportFrom) or "*" in defined:
                module.always.append(index)
        return module

    def text(self, index: int) -> str:
        """The lines of a statement, without comments and blank lines."""
        statement = self.statements[index]
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(one.lineno for one in decorators)])
        lines = self.lines[first - 1 : statement.end_lineno]
        return "\n".join(line for line in lines if line)


class _Project:
    """What a function uses of the modules in some folders."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots
        self._modules: dict[str, _Module | None] = {}
        self._used: set[tuple[str, int]] = set()
        self._whole: dict[str, bytes] = {}

    def digest(self) -> str:
        """SHA-256 of everything that was used."""
        digest = hashlib.sha256()
        for name, index in sorted(self._used):
            module = self._modules[name]
            assert module is not None
            digest.update(f"{name}\n{module.text(index)}\n".encode("utf-8", "surrogateescape"))
        for name, content in sorted(self._whole.items()):
            digest.update(name.encode() + b"\n" + content)
        return digest.hexdigest()

    def use(self, name: str, wanted: Iterable[str] | None) -> None:
        """Adds definitions of a module and all that they use; None adds the whole module. Modules elsewhere are left
        out.
        """
        module = self._open(name)
        if module is None:
            return
        parent = name.rpartition(".")[0]
        if parent:
            self.use(parent, [])
        todo = list(module.always)
        for one in wanted if wanted is not None else [None]:
            if one in module.definitions:
                todo += module.definitions[one]
            else:
                todo += range(len(module.statements))
        while todo:
            index = todo.pop()
            if (name, index) in self._used:
                continue
            self._used.add((name, index))
            used = {node.id for node in ast.walk(module.statements[index]) if isinstance(node, ast.Name)}
            if used & _BY_NAME:
                todo += range(len(module.statements))
            todo += [other for one in used for other in module.definitions.get(one, ())]
            self._follow(module, module.statements[index])

    def _follow(self, module: _Module, statement: ast.stmt) -> None:
        """Adds what a statement imports."""
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.use(alias.name, None)
            elif isinstance(node, ast.ImportFrom):
                source = _absolute(module, node)
                for alias in node.names:
                    if self._is_package(source) and self._open(f"{source}.{alias.name}") is not None:
                        self.use(f"{source}.{alias.name}", None)
                    else:
                        self.use(source, None if alias.name == "*" else [alias.name])

    def _open(self, name: str) -> _Module | None:
        """The module, if it is one of the project's."""
        if name not in self._modules:
            self._modules[name] = None
            path = source_of(name) if self._is_ours(name) else None
            if path is not None and self._owns(path):
                try:
                    self._modules[name] = _Module.read(name, path.name == "__init__.py", path.read_bytes())
                except (OSError, SyntaxError, ValueError):  # importing it says what is wrong
                    self._whole[name] = path.read_bytes() if path.is_file() else b""
        return self._modules[name]

    def _is_ours(self, name: str) -> bool:
        """Whether the package that a module is in is the project's. Libraries are not looked into, as that would import
        them.
        """
        specs = specs_of(name.partition(".")[0])
        if not specs:
            return False
        spec = specs[-1]
        places = [spec.origin] if spec.has_location and spec.origin else spec.submodule_search_locations or ()
        return any(self._owns(Path(place).resolve()) for place in places)

    def _is_package(self, name: str) -> bool:
        """Whether a module of the project is a package, and has modules in it."""
        specs = specs_of(name) if self._is_ours(name) else ()
        return bool(specs) and specs[-1].submodule_search_locations is not None

    def _owns(self, path: Path) -> bool:
        return not is_installed(path) and any(path.is_relative_to(root) for root in self._roots)


def _roots(module: str, path: Path) -> tuple[Path, ...]:
    """The folders of the project that a module belongs to."""
    depth = module.count(".") + (path.name == "__init__.py")
    return path.parents[depth], Path.cwd().resolve()


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    """The module that `from … import` names."""
    if not node.level:
        return node.module or ""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
    return ".".join(part for part in (above, node.module) if part)


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names of a module that a statement defines, or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    targets: list[ast.AST] = [statement]
    if isinstance(statement, ast.Assign):
        targets = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets = [statement.target]
    for node in (node for target in targets for node in ast.walk(target)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0]
        elif isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or targets != [statement]):
            yield node.id  # also of `name.attribute = …`, which changes what the name stands for


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_main_guard(statement: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == …`, which runs in a script alone."""
    return isinstance(statement, ast.If) and any(
        isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(statement.test)
    )


def _without_comments(content: bytes) -> list[str]:
    """The lines of a file, without comments and spaces at their ends."""
    text = io.TextIOWrapper(io.BytesIO(content), tokenize.detect_encoding(io.BytesIO(content).readline)[0])
    lines = text.read().splitlines()
    for token in tokenize.tokenize(io.BytesIO(content).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return [line.rstrip() for line in lines]
