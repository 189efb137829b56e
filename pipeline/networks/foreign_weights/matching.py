"""The tensors of a file matched with those of a network: by name and shape, whatever stands before or inside the names.

A *prefix* of the file (`state_dict.model.`) and one of the network (`body.`) are looked for under which the most names
agree; they are voted for by every pair of names that end alike, so no list of known prefixes is needed. What is left is
then matched one by one, where a name of the file has more parts than the network's (`features.module.0.weight`) and one
tensor alone can be meant.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from decant.pipeline.networks.foreign_weights.tensors import Tensors

_PAIRS = 64  # of prefixes that are tried in full, the most voted first
_ALIKE = 20  # more tensors of a network that end alike ("weight") tell nothing
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module")
_RENAMED = (  # names of older releases of torchvision and transformers, and of weight normalisation
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)"), r"\1"),
    (re.compile(r"\.gamma$"), ".weight"),
    (re.compile(r"\.beta$"), ".bias"),
    (re.compile(r"\.weight_g$"), ".parametrizations.weight.original0"),
    (re.compile(r"\.weight_v$"), ".parametrizations.weight.original1"),
)


@dataclass(frozen=True)
class Fit:
    """One way to take a network's tensors from a file."""

    prefix: str
    """What stands before the network's names in the file."""
    same: Mapping[str, str]
    """The network's names → the file's, of tensors of equal shape."""
    reshaped: Mapping[str, str]
    """The same, of tensors of other shapes."""

    @property
    def paths(self) -> set[str]:
        """Every tensor of the file that has a place in the network."""
        return {*self.same.values(), *self.reshaped.values()}


def find_fits(own: Mapping[str, Tensor], theirs: Tensors) -> list[Fit]:
    """The ways to take the tensors of `own` from `theirs`, one for each prefix, the fullest first.

    >>> import torch
    >>> theirs = Tensors.of({"ema": {"fc.bias": torch.ones(2)}, "fc.bias": torch.ones(3)})
    >>> [(fit.prefix, dict(fit.same)) for fit in find_fits({"body.bias": torch.zeros(2)}, theirs)]
    [('ema.fc.', {'body.bias': 'ema.fc.bias'}), ('fc.', {})]
    """
    fits: list[Fit] = []
    for spelling in _spellings(theirs):
        fits += [spelling.back(fit) for fit in _fits_of_names(own, spelling)]
        if any(len(fit.same) == len(own) for fit in fits):
            break
    best: dict[str, Fit] = {}
    for fit in sorted(fits, key=lambda fit: (len(fit.same), len(fit.reshaped)), reverse=True):
        best.setdefault(fit.prefix, fit)
    return list(best.values())


@dataclass(frozen=True)
class _Spelling:
    """The names of a file as they are compared with the network's."""

    tensors: Mapping[str, Tensor]
    containers: Mapping[str, str]
    paths: Mapping[str, str]
    """Name → path in the file."""

    spell: Callable[[str], str]
    """What made them of the file's."""

    def back(self, fit: Fit) -> Fit:
        """A fit of these names, as one of the file's own paths."""
        same = {own: self.paths[name] for own, name in fit.same.items()}
        reshaped = {own: self.paths[name] for own, name in fit.reshaped.items()}
        prefixes = [
            self._prefix_in_file(fit.prefix, name)
            for name in (*fit.same.values(), *fit.reshaped.values())
            if name.startswith(fit.prefix)
        ]
        return Fit(_common_prefix(prefixes), same, reshaped)

    def _prefix_in_file(self, prefix: str, name: str) -> str:
        """All that stands in the file's path of `name` before what `prefix` leaves of it."""
        path, container = self.paths[name], self.containers[name]
        if len(prefix) <= len(container):
            return path[: len(prefix)]
        spelt = [
            raw
            for raw, _ in _splits(path[len(container) :])
            if container + "".join(f"{part}." for part in self.spell(raw[:-1]).split(".") if part) == prefix
        ]
        return container + spelt[-1] if spelt else prefix


def _spellings(theirs: Tensors) -> Iterator[_Spelling]:
    """The names as they are, without the parts that wrappers add, and as newer releases call them."""
    spellings: list[Callable[[str], str]] = [
        str,
        _without_wrappers,
        lambda name: _as_now(_without_wrappers(name)),
    ]
    for number, spell in enumerate(spellings):
        paths = {}
        for path, container in theirs.containers.items():
            paths[container + spell(path[len(container) :])] = path
        if len(paths) == len(theirs.by_path) and (
            number == 0 or any(name != path for name, path in paths.items())
        ):
            tensors = {name: theirs.by_path[path] for name, path in paths.items()}
            yield _Spelling(
                tensors, {name: theirs.containers[path] for name, path in paths.items()}, paths, spell
            )


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _as_now(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _common_prefix(prefixes: list[str]) -> str:
    """The longest of them that all begin with; the shortest where there is none."""
    return next(
        (one for one in sorted(prefixes, key=len, reverse=True) if all(p.startswith(one) for p in prefixes)),
        "",
    )


def _fits_of_names(own: Mapping[str, Tensor], spelling: _Spelling) -> list[Fit]:
    best: dict[str, tuple[tuple[int, int, int], Fit, str]] = {}
    for prefix, own_prefix in _prefix_pairs(own, spelling.tensors):
        fit = _fit(own, spelling.tensors, prefix, own_prefix)
        rank = (len(fit.same), len(fit.reshaped), -len(own_prefix))
        if prefix not in best or rank > best[prefix][0]:
            best[prefix] = rank, fit, own_prefix
    return [_extended(own, spelling, fit, own_prefix) for _, fit, own_prefix in best.values()]


def _prefix_pairs(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """(prefix in the file, prefix in the network), the pair under which the most names agree first."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name in own:
        for prefix, rest in _splits(name):
            owners[rest].append(prefix)
    votes = Counter[tuple[str, str]]()
    for path in theirs:
        for prefix, rest in _splits(path):
            if rest in owners:
                if len(owners[rest]) <= _ALIKE:
                    votes.update((prefix, own_prefix) for own_prefix in owners[rest])
                break
    return [pair for pair, _ in votes.most_common(_PAIRS)]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Every way to take a prefix off a name, the shortest first."""
    at = 0
    while True:
        yield name[:at], name[at:]
        dot = name.find(".", at)
        if dot < 0:
            return
        at = dot + 1


def _fit(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], prefix: str, own_prefix: str) -> Fit:
    same, reshaped = dict[str, str](), dict[str, str]()
    for name, tensor in own.items():
        path = prefix + name[len(own_prefix) :]
        if name.startswith(own_prefix) and path in theirs:
            (same if theirs[path].shape == tensor.shape else reshaped)[name] = path
    return Fit(prefix, same, reshaped)


def _extended(own: Mapping[str, Tensor], spelling: _Spelling, fit: Fit, own_prefix: str) -> Fit:
    """`fit` with what is left of the network, where one tensor of the file alone can be meant."""
    left = [name for name in own if name not in fit.same and name not in fit.reshaped]
    if not left or not fit.same:
        return fit
    rule = _Inserted.of(fit, own_prefix, spelling.containers[next(iter(fit.same.values()))])
    endings: dict[str, list[str]] = defaultdict(list)
    for path in spelling.tensors:
        if path.startswith(rule.root) and path not in fit.paths:
            endings[path.rpartition(".")[2]].append(path)
    meant: dict[str, str] = {}
    for name in left:
        alike = endings[name.rpartition(".")[2]]
        shape = own[name].shape
        paths = [path for path in alike if spelling.tensors[path].shape == shape and rule.allows(path, name)]
        if len(paths) == 1:
            meant[name] = paths[0]
    times = Counter(meant.values())
    added = {name: path for name, path in meant.items() if times[path] == 1}
    inside = all(path.startswith(fit.prefix) for path in added.values())
    return Fit(fit.prefix if inside else rule.root, {**fit.same, **added}, fit.reshaped)


@dataclass(frozen=True)
class _Inserted:
    """Which parts the file may have put into a name of the network."""

    root: str
    """Nothing outside of it is looked at."""
    prefix: str
    own_prefix: str
    by_prefix: list[str] | None
    """The parts that the prefix of the file has more than the network's."""

    @classmethod
    def of(cls, fit: Fit, own_prefix: str, container: str) -> _Inserted:
        """The rule for what a fit leaves. Where its prefix is a whole container, those beside it may have the rest, as
        {"backbone": …, "head": …} does.
        """
        root = container if fit.prefix.startswith(container) else fit.prefix
        by_prefix = _inserted(fit.prefix[len(root) :], own_prefix.removeprefix("body."))
        if fit.prefix == container:
            root = container[: container.rfind(".", 0, -1) + 1]
        return cls(root, fit.prefix, own_prefix, by_prefix)

    def allows(self, path: str, name: str) -> bool:
        """Under the prefix of a fit any parts; elsewhere none, or those that its prefix has."""
        if path.startswith(self.prefix) and name.startswith(self.own_prefix):
            return _inserted(path[len(self.prefix) :], name[len(self.own_prefix) :]) is not None
        spellings = {name, name.removeprefix("body.")}
        inserted = [_inserted(path[len(self.root) :], spelling) for spelling in spellings]
        return [] in inserted or (bool(self.by_prefix) and self.by_prefix in inserted)


def _inserted(longer: str, shorter: str) -> list[str] | None:
    """The parts of the name `longer` that `shorter` has not; None where it does not have all of that one's in order."""
    extra, rest = list[str](), shorter.split(".")
    for part in longer.split("."):
        if rest and part == rest[0]:
            del rest[0]
        else:
            extra.append(part)
    return None if rest else extra
