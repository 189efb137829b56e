"""What keeps a file from fitting a network, and what may be missing or left out all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from decant.pipeline.networks.foreign_weights.matching import Fit
from decant.pipeline.networks.foreign_weights.tensors import Tensors
from decant.pipeline.networks.foreign_weights.wording import listed, shown

_BOOKKEEPING = ("n_averaged", "num_updates", "decay", "num_batches_tracked")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception, for training alone
_HEADS = 2  # as many as distilled DeiTs have


@dataclass(frozen=True)
class Misfits:
    """A fit, and what it lacks."""

    fit: Fit
    own: Mapping[str, Tensor]
    found: Tensors
    num_classes: int | None
    missing: tuple[str, ...]
    """Names of the network that the file must have and has not."""
    reshaped: tuple[str, ...]
    """Names of the network whose tensors have another shape in the file."""
    unexpected: tuple[str, ...]
    """Paths of the file among the network's that it has no place for."""
    ignored: tuple[str, ...]
    """Paths of the file beside the network's, which are of something else."""

    @classmethod
    def of(
        cls, module: nn.Module, own: Mapping[str, Tensor], fit: Fit, found: Tensors, num_classes: int | None
    ) -> Misfits:
        """What `fit` lacks of `module`, whose state dict is `own`."""
        missing = [name for name in own if name not in fit.same and name not in fit.reshaped]
        missing = [name for name in missing if not _may_be_missing(name, own, fit)]
        reshaped = [name for name in fit.reshaped if not name.endswith("num_batches_tracked")]
        computed = {name.removeprefix("body.") for name, _ in module.named_buffers()}
        # One layer found by "weight" and "bias" alone is no evidence that what lies beside it is of another module.
        weak = all("." not in path.removeprefix(fit.prefix) for path in fit.paths)
        unexpected, ignored = list[str](), list[str]()
        for path in found.beside(fit.paths):
            rest = path.removeprefix(fit.prefix)
            if path.rpartition(".")[2] in _BOOKKEEPING or rest.removeprefix("body.") in computed:
                continue
            inside = (weak or path.startswith(fit.prefix)) and found.by_path[path].is_floating_point()
            (unexpected if inside and not rest.startswith(_AUXILIARY) else ignored).append(path)
        made = cls(
            fit, own, found, num_classes, tuple(missing), tuple(reshaped), tuple(unexpected), tuple(ignored)
        )
        return made._without_old_head()

    @cached_property
    def other_head(self) -> tuple[str, ...]:
        """The last layers, where they are all that the file has not, or has of another size."""
        names = {*self.missing, *self.reshaped}
        layers = tuple(dict.fromkeys(name.rpartition(".")[0] for name in self.own if name in names))
        if not names or not self.fit.same or len(layers) > _HEADS or self.num_classes is None:
            return ()
        if any(self.own[n].shape[:1] != (self.num_classes,) or n.startswith("preprocess.") for n in names):
            return ()
        if self.missing and not self._last(names):
            return ()
        rows = {self.found.by_path[self.fit.reshaped[name]].shape[:1] for name in self.reshaped}
        rests = [
            (self.found.by_path[self.fit.reshaped[n]].shape[1:], self.own[n].shape[1:]) for n in self.reshaped
        ]
        return layers if len(rows) <= 1 and all(theirs == own for theirs, own in rests) else ()

    @property
    def their_classes(self) -> int | None:
        """How many classes the file's last layer has, where that is not the network's number."""
        if not self.other_head or not self.reshaped:
            return None
        shape = self.found.by_path[self.fit.reshaped[self.reshaped[0]]].shape
        return int(shape[0]) if shape else None

    @property
    def complete(self) -> bool:
        """Whether the file has all that the network needs, but perhaps for its last layer."""
        return not self.unexpected and (not (self.missing or self.reshaped) or bool(self.other_head))

    @property
    def agreeing(self) -> tuple[int, int]:
        """How many names agree, with their shapes and without."""
        return len(self.fit.same), len(self.fit.reshaped)

    @property
    def is_near(self) -> bool:
        """Whether at least half of the network's names are in the file, so that each that is not is worth naming."""
        needed = [
            name
            for name in self.own
            if not _may_be_missing(name, self.own, self.fit) or name in self.fit.same
        ]
        return 2 * (len(self.fit.same) + len(self.fit.reshaped)) >= len(needed)

    def described(self, setting: str) -> str:
        """Every misfit in words: three of them, and how many more there are."""
        shape = {name: tuple(self.found.by_path[path].shape) for name, path in self.fit.reshaped.items()}
        every = [
            *(f"{name} is {shape[name]}, expected {tuple(self.own[name].shape)}" for name in self.reshaped),
            *(f"{name} is missing" for name in self.missing),
            *(f"{shown(path)} is unexpected" for path in self.unexpected),
        ]
        words = "; ".join(every[:3]) + (f"; and {len(every) - 3:,} more" if len(every) > 3 else "")
        if not self.other_head:
            return words
        classes = f"{self.num_classes:,}"
        cause = (
            f"it has {self.their_classes:,} classes, the data has {classes}"
            if self.their_classes
            else (f"it has no last layer for the {classes} classes of the data")
        )
        words = f"{words}; set {setting}.epochs to train a new last layer, or give weights of these classes"
        more = setting == "teacher" and (self.their_classes or 0) > (self.num_classes or 0)
        return f"{cause}; {words}" + (", or keep their outputs with teacher.classes" if more else "")

    def left_out(self) -> str:
        """What of the file was not taken; empty where everything was."""
        if not self.ignored:
            return ""
        count = len(self.ignored)
        what = (
            "tensor is of no layer of this network and was"
            if count == 1
            else "tensors are of no layer of this network and were"
        )
        return f"{count:,} {what} left out: {listed(self.ignored, 3)}"

    def new_head(self) -> str:
        """Which layer begins anew; empty where none does."""
        if not self.other_head:
            return ""
        layers = ", ".join(self.other_head)
        before = f"{self.their_classes:,}" if self.their_classes else "none in the file"
        return f"{layers}: a new last layer, from {before} to {self.num_classes:,} classes; it is trained from scratch"

    def _last(self, names: set[str]) -> bool:
        """Whether nothing that the network needs comes after the first of `names`."""
        needed = [name for name in self.own if name in names or name in self.fit.same]
        first = min(needed.index(name) for name in names)
        return set(needed[first:]) == names

    def _without_old_head(self) -> Misfits:
        """The same, where a last layer is new with the file's own one, under another name, among what is left out."""
        if not (self.other_head and self.missing):
            return self
        start = len(self.fit.prefix)
        of_network = {path[start:].partition(".")[0] for path in self.fit.paths}
        if any(path[start:].partition(".")[0] in of_network for path in self.unexpected):
            return self
        return Misfits(
            self.fit,
            self.own,
            self.found,
            self.num_classes,
            self.missing,
            self.reshaped,
            (),
            (*self.ignored, *self.unexpected),
        )


def _may_be_missing(name: str, own: Mapping[str, Tensor], fit: Fit) -> bool:
    """Whether nothing is lost where a file has no such tensor: normalisation, which files of a body do not know;
    counters and tables of integers, which networks make themselves; and a tensor that is tied to one that is there.
    """
    if name.startswith("preprocess.") or not (own[name].is_floating_point() or own[name].is_complex()):
        return True
    return any(
        own[other].data_ptr() == own[name].data_ptr() and own[other].shape == own[name].shape
        for other in fit.same
        if own[name].numel()
    )


def nothing_fits(own: Mapping[str, Tensor], found: Tensors, fits: Sequence[Fit]) -> str:
    """Both sides' names, how many agree, and what was tried."""
    best = max((len(fit.same) for fit in fits), default=0)
    containers = [place.rstrip(".") or "the top" for place in dict.fromkeys(found.containers.values())]
    prefixes = [fit.prefix for fit in fits if fit.prefix]
    tried = f"names under {listed(containers, 4)}" + (f", without {listed(prefixes, 4)}" if prefixes else "")
    arch = f"; the file says that it is of {shown(found.arch)}" if found.arch else ""
    theirs = ((path.removeprefix(found.containers[path]), tensor) for path, tensor in found.by_path.items())
    ours = (
        (name.removeprefix("body."), tensor)
        for name, tensor in own.items()
        if not name.startswith("preprocess.")
    )
    return (
        f"{best:,} of the network's {len(own):,} tensors are in it by name and shape; "
        f"the file has {_examples(theirs)}; the network has {_examples(ours)}; tried {tried}{arch}"
    )


def _examples(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The first few with two dimensions or more, which tell networks apart, with their shapes."""
    every = list(tensors)
    telling = [one for one in every if one[1].dim() > 1] or every
    words = ", ".join(f"{shown(name)} {tuple(tensor.shape)}" for name, tensor in telling[:4])
    return f"{words} and {len(every) - 4:,} more" if len(every) > 4 else words
