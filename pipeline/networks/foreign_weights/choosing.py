"""Which of several state dicts in one file is taken: averaged weights before raw ones, else none without being told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decant.pipeline.networks.foreign_weights.misfits import Misfits
from decant.pipeline.networks.foreign_weights.tensors import Tensors
from decant.pipeline.networks.foreign_weights.wording import shown

_AVERAGED = re.compile(r"(?<![a-z])(ema|swa|polyak|averaged?|averaging|avg|shadow)(?![a-z])")


@dataclass(frozen=True)
class Choice:
    """What is taken of a file."""

    taken: Misfits
    preference: str = ""
    """What was preferred to what, and how to choose otherwise; empty where there was no choice."""
    ambiguity: str = ""
    """Why nothing can be taken; empty where something is."""


def choose(complete: Sequence[Misfits], found: Tensors, setting: str) -> Choice | None:
    """The one of several fits that is taken; None where there is none."""
    rivals = _distinct(complete, found)
    averaged = [one for one in rivals if _is_averaged(one, found)]
    raw = [one for one in rivals if one not in averaged]
    if not rivals:
        return None
    if len(rivals) == 1:
        return Choice(rivals[0], preference="" if averaged else _unmatched_averages(complete, found))
    if len(averaged) == 1:
        others = " or ".join(_place(one) for one in raw)
        return Choice(
            averaged[0],
            preference=f"has averaged weights and raw ones; took the averaged, under {_place(averaged[0])}; for the "
            f"others set {setting}.weights_key to {others}",
        )
    places = ", ".join(_place(one) for one in rivals[:5]) + (", …" if len(rivals) > 5 else "")
    return Choice(
        rivals[0],
        ambiguity=f"it has several sets of weights that fit this network, and they differ; set "
        f"{setting}.weights_key to one of {places}",
    )


def _distinct(complete: Sequence[Misfits], found: Tensors) -> list[Misfits]:
    """The fullest fits that take different values, without averages that are of no step yet where there are others."""
    rivals: list[Misfits] = []
    for one in complete:
        if not any(_same_tensors(one, other, found) for other in rivals):
            rivals.append(one)
    fullest = max((one.agreeing for one in rivals), default=None)
    rivals = [one for one in rivals if one.agreeing == fullest]
    begun = [one for one in rivals if _steps(one, found) != 0]
    return begun or rivals


def _unmatched_averages(complete: Sequence[Misfits], found: Tensors) -> str:
    """That there are averaged weights which do not fit; empty where there are none."""
    places = {found.containers[path] for path, tensor in found.by_path.items() if tensor.is_floating_point()}
    places -= {found.containers[path] for one in complete for path in one.fit.paths}
    places = {
        place for place in places if _says_averaged(place) and found.by_path.get(f"{place}n_averaged") is None
    }
    if not places:
        return ""
    names = " and ".join(shown(place.rstrip(".")) for place in sorted(places)[:3])
    return f"has averaged weights under {names}, which lack tensors of this network, or their names; took the raw ones"


def _place(one: Misfits) -> str:
    return f'"{shown(one.fit.prefix.rstrip("."))}"' if one.fit.prefix else '"."'


def _same_tensors(one: Misfits, other: Misfits, found: Tensors) -> bool:
    """Whether two fits take equal values for every tensor of the network."""
    if one.fit.same.keys() != other.fit.same.keys():
        return bool(one.fit.paths & other.fit.paths)
    for name, path in one.fit.same.items():
        first, second = found.by_path[path], found.by_path[other.fit.same[name]]
        if first is not second and not _equal(first, second):
            return False
    return True


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    try:
        return first.dtype == second.dtype and torch.equal(first, second)
    except RuntimeError:  # meta, quantised in other ways: not to be compared, so not known to be equal
        return False


def _is_averaged(one: Misfits, found: Tensors) -> bool:
    """Whether weights are the mean of those of many steps, by their key or by a count of the steps beside them."""
    if _steps(one, found) is not None:
        return True
    if "state_dict" in found.keys and "current_model_state" in found.keys:  # Lightning's WeightAveraging
        return one.fit.prefix.startswith("state_dict.")
    return _says_averaged(one.fit.prefix)


def _says_averaged(place: str) -> bool:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", place).lower()
    return _AVERAGED.search(words) is not None


def _steps(one: Misfits, found: Tensors) -> int | None:
    """`n_averaged` of an AveragedModel beside its weights; None where there is none."""
    container = found.containers[next(iter(one.fit.paths))]
    steps = found.by_path.get(f"{container}n_averaged")
    if steps is None or steps.numel() != 1 or steps.device.type != "cpu":
        return None
    return int(steps)
