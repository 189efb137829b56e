"""Every tensor of a checkpoint by its path, however deep it lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from decant.pipeline.networks.foreign_weights.pickled_types import ScriptObject, StandIn

_CONTAINERS = 200_000  # that are looked into; no real checkpoint comes near


@dataclass(frozen=True)
class Tensors:
    """The tensors of a checkpoint, each by the keys that lead to it, joined by dots.

    >>> import torch
    >>> found = Tensors.of({"epoch": 3, "model": {"fc.bias": torch.zeros(2)}})
    >>> list(found.by_path), found.containers["model.fc.bias"], found.keys
    (['model.fc.bias'], 'model.', ('epoch', 'model'))
    """

    by_path: Mapping[str, Tensor]
    containers: Mapping[str, str]
    """For each path the container that the tensor lies in directly, as a prefix: `"model."`, or `""` at the top."""
    keys: tuple[str, ...]
    """The keys at the top."""
    arch: str | None = None
    """What the file says its architecture is, as timm's and PyTorch's examples do."""
    hint: str = ""
    """Why there may be no tensors, and what to do."""

    @classmethod
    def of(cls, content: object) -> Tensors:
        """All tensors in nested mappings, lists and TorchScript modules; no container is entered from inside itself."""
        by_path, containers = dict[str, Tensor](), dict[str, str]()
        for container, name, tensor in _walk(content):
            by_path[container + name] = tensor.detach()
            containers[container + name] = container
        top = content if isinstance(content, Mapping) else {}
        arch = top["arch"] if isinstance(top.get("arch"), str) else None
        return cls(by_path, containers, tuple(map(str, top)), arch, _hint(content))

    def under(self, key: str) -> Tensors:
        """Those whose path begins with `key`, a dotted path; "." stands for those at the top."""
        if key == ".":
            chosen = {path for path, container in self.containers.items() if not container}
        else:
            chosen = {path for path in self.by_path if path.startswith(f"{key}.")}
        return Tensors(
            {path: tensor for path, tensor in self.by_path.items() if path in chosen},
            {path: container for path, container in self.containers.items() if path in chosen},
            self.keys,
            self.arch,
            self.hint,
        )

    def beside(self, paths: set[str]) -> list[str]:
        """The other tensors of the containers that `paths` lie in."""
        inside = {self.containers[path] for path in paths}
        return [path for path in self.by_path if self.containers[path] in inside and path not in paths]


def _hint(content: object) -> str:
    if isinstance(content, ScriptObject):
        return " without weights of its own, as torch.jit.freeze makes them; give the archive from before"
    values = content.values() if isinstance(content, Mapping) else ()
    arrays = any(isinstance(value, StandIn) and "multiarray" in value.stands_for for value in values)
    return "; its arrays are NumPy's: save torch tensors" if arrays else ""


def _walk(content: object) -> Iterator[tuple[str, str, Tensor]]:
    """(container, name, tensor), in the order of the file. The modules of a TorchScript archive are one container."""
    todo: list[tuple[object, str, str, frozenset[int]]] = [(content, "", "", frozenset())]
    for _ in range(_CONTAINERS):
        if not todo:
            return
        value, container, inner, above = todo.pop()
        entered = []
        for key, item in _items(value):
            name = f"{inner}{key}"
            if isinstance(item, Tensor):
                yield container, name, item
            elif isinstance(item, Mapping | list | tuple | ScriptObject) and id(item) not in above:
                one_module = isinstance(value, ScriptObject) and isinstance(item, ScriptObject)
                place = (container, f"{name}.") if one_module else (f"{container}{name}.", "")
                entered.append((item, *place, above | {id(item)}))
        todo.extend(reversed(entered))


def _items(content: object) -> Iterator[tuple[object, object]]:
    if isinstance(content, ScriptObject):
        yield from content.attributes.items()
    elif isinstance(content, Mapping):
        yield from ((key, value) for key, value in content.items() if not isinstance(key, StandIn))
    elif isinstance(content, list | tuple):
        pairs = bool(content) and all(
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in content
        )
        yield from content if pairs else enumerate(content)
