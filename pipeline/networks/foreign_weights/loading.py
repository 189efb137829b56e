"""Foreign weights into a network: wrong is refused, doubtful is said, left out is counted and said."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights.choosing import Choice, choose
from decant.pipeline.networks.foreign_weights.matching import Fit, find_fits
from decant.pipeline.networks.foreign_weights.misfits import Misfits, nothing_fits
from decant.pipeline.networks.foreign_weights.partial_files import advice
from decant.pipeline.networks.foreign_weights.pickled_types import ScriptObject
from decant.pipeline.networks.foreign_weights.reading import read_checkpoint
from decant.pipeline.networks.foreign_weights.tensors import Tensors
from decant.pipeline.networks.foreign_weights.values import converted, loses_precision
from decant.pipeline.networks.foreign_weights.wording import listed, shown
from decant.pipeline.networks.weights import with_versions


@dataclass(frozen=True)
class LoadedWeights:
    """What became of a file of weights."""

    notes: tuple[str, ...]
    """What a user should hear once: a choice that was made, tensors left out, a new last layer, lost precision."""
    has_normalisation: bool
    """Whether the file brought the mean and standard deviation of the inputs, as files of finished runs do."""


@dataclass(frozen=True)
class _Checkpoint:
    """A file of weights, and the place in it that was asked for."""

    path: Path
    found: Tensors
    key: str | None
    setting: str
    notes: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> WeightsError:
        return WeightsError(f"{self.path} {reason}")

    def say(self, note: str) -> None:
        self.notes.append(f"{self.path}: {note}")


def load_foreign_weights(
    module: nn.Module,
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    num_classes: int | None = None,
    new_head: bool = False,
    setting: str = "teacher",
) -> LoadedWeights:
    """Copy the weights in `path` into `module`: all that it needs, or nothing and a WeightsError.

    `path` is a file of any form that PyTorch users keep weights in, the index of shards, or a folder of either; see
    `reading`. The state dict in it is found by content: it may lie under any keys, with anything before or inside its
    names, of the whole module or of its child `body` alone. Averaged weights are preferred to raw ones. `key`, a dotted
    path (`"model_ema"`, `"model.student"`, `"."` for the top), says which are meant.

    A last layer of another size (its first dimension differs, and the module's is `num_classes`) is refused, or with
    `new_head` left as the module has it. `setting` is the recipe's section that messages speak of.

    >>> import tempfile, torch
    >>> file = Path(tempfile.mkdtemp()) / "checkpoint.pth"
    >>> torch.save({"state_dict": {"module.0.weight": torch.ones(2, 2)}, "epoch": 3}, file)
    >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
    >>> load_foreign_weights(network, file).notes
    ()
    >>> network[0].weight.tolist()
    [[1.0, 1.0], [1.0, 1.0]]

    Raises WeightsError when the file is missing, unreadable, holds code, does not fit, or may mean several things.
    """
    path = Path(path)
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    num_classes = num_classes or _outputs(own)
    checkpoint = _open(path, key, setting)
    fits = _fits_at(own, checkpoint)
    weighed = [Misfits.of(module, own, fit, checkpoint.found, num_classes) for fit in fits]
    choice = choose([one for one in weighed if one.complete], checkpoint.found, setting)
    quantised = [place for place, tensor in checkpoint.found.by_path.items() if tensor.is_quantized]
    if quantised and (choice is None or choice.taken.other_head):
        raise checkpoint.refuse(
            f"was not loaded: it holds quantised weights ({listed(quantised, 3)}); give those that they were made from"
        )
    if choice is None:
        best = max(weighed, key=lambda one: one.agreeing, default=None)
        more = advice(module, checkpoint.found)
        if best is None or not best.is_near:
            raise checkpoint.refuse(
                f"does not fit this network: {nothing_fits(own, checkpoint.found, fits)}{more}"
            )
        raise checkpoint.refuse(f"does not fit this network: {best.described(setting)}{more}")
    if choice.ambiguity:
        raise checkpoint.refuse(f"was not loaded: {choice.ambiguity}")
    _say_choice(checkpoint, choice)
    if choice.taken.other_head and not new_head:
        raise checkpoint.refuse(f"does not fit this network: {choice.taken.described(setting)}")
    state = _values(checkpoint, own, choice.taken.fit)
    try:
        # `Misfits` has decided what may be missing.
        module.load_state_dict(with_versions(module, state), strict=False)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:  # of a module with a loading of its own
        raise checkpoint.refuse(f"does not fit this network: {' '.join(str(error).split())}") from error
    return LoadedWeights(tuple(checkpoint.notes), "preprocess.mean" in state)


def count_outputs(module: nn.Module, path: str | os.PathLike[str], *, key: str | None = None) -> int | None:
    """How many classes the last layer in a file has, where the rest of it fits `module`; None where that is not to be
    told. Nothing is loaded. Raises WeightsError for a file that cannot be read.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    outputs, checkpoint = _outputs(own), _open(Path(path), key, "teacher")
    weighed = [Misfits.of(module, own, fit, checkpoint.found, outputs) for fit in _fits_at(own, checkpoint)]
    complete = [one for one in weighed if one.complete]
    if any(not one.other_head for one in complete):
        return outputs
    return next((one.their_classes for one in complete if one.their_classes), None)


def _outputs(own: dict[str, Tensor]) -> int | None:
    """How many outputs a network has, by its last tensor of two dimensions or more."""
    return next((value.shape[0] for value in reversed(own.values()) if value.ndim >= 2), None)


def _open(path: Path, key: str | None, setting: str) -> _Checkpoint:
    """The tensors of a file, or of a place in it. Raises WeightsError where there are none."""
    content = read_checkpoint(path)
    found = Tensors.of(content)
    if not found.by_path:
        keys = listed(found.keys, 10) if isinstance(content, dict) else _kind(content)
        raise WeightsError(f"{path} holds no state dict; found {keys or 'nothing'}{found.hint}")
    if key is not None:
        whole, found = found, found.under(key)
        if not found.by_path:
            places = listed(sorted({place.partition(".")[0] for place in whole.by_path}), 10)
            raise WeightsError(
                f"{path} has no tensors under {shown(key)} ({setting}.weights_key); they lie under {places}"
            )
    return _Checkpoint(path, found, key, setting)


def _kind(content: object) -> str:
    return "a TorchScript archive" if isinstance(content, ScriptObject) else type(content).__name__


def _fits_at(own: dict[str, Tensor], checkpoint: _Checkpoint) -> list[Fit]:
    fits = find_fits(own, checkpoint.found)
    return [fit for fit in fits if not fit.prefix] if checkpoint.key == "." else fits


def _say_choice(checkpoint: _Checkpoint, choice: Choice) -> None:
    for note in (choice.preference, choice.taken.left_out(), choice.taken.new_head()):
        if note:
            checkpoint.say(note)


def _values(checkpoint: _Checkpoint, own: dict[str, Tensor], fit: Fit) -> dict[str, Tensor]:
    """The tensors to be taken, in the network's dtypes. Raises WeightsError, naming those that cannot be."""
    state, wrong, rounded = dict[str, Tensor](), list[str](), list[str]()
    for name, place in fit.same.items():
        theirs = checkpoint.found.by_path[place]
        try:
            state[name] = converted(theirs, own[name])
        except WeightsError as error:
            wrong.append(f"{shown(place)} {error}")
            continue
        if loses_precision(theirs, state[name]):
            rounded.append(place)
    if wrong:
        more = f"; and {len(wrong) - 3:,} more" if len(wrong) > 3 else ""
        raise checkpoint.refuse(f"was not loaded: {'; '.join(wrong[:3])}{more}")
    if rounded:
        kind = str(checkpoint.found.by_path[rounded[0]].dtype).removeprefix("torch.")
        what = "tensor is" if len(rounded) == 1 else "tensors are"
        checkpoint.say(
            f"{len(rounded):,} {what} {kind}, and rounded to the network's dtype: {listed(rounded, 3)}"
        )
    return state
