"""A student made of some of its teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.causal import cut_config

Network = TypeVar("Network", bound=nn.Module)


def cut_layers(teacher: Network, layers: Sequence[int]) -> Network:
    """A network of the same kind and width with some of a teacher's layers, in this order; embeddings, final norm and
    head are copied too. The teacher stays as it is.

    teacher: a causal model of transformers, whose layers are one `ModuleList`. layers: their numbers from 0, as
    range(0, 30, 5) for every fifth of 30. Raises ModelError for other networks, and for layers that there are not.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 50}
    >>> teacher = LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **sizes))
    >>> student = cut_layers(teacher, [0, 3])
    >>> bool((student.model.layers[1].mlp.up_proj.weight == teacher.model.layers[3].mlp.up_proj.weight).all())
    True
    """
    count, chosen = _count(teacher), [int(layer) for layer in layers]
    if not chosen or any(not 0 <= layer < count for layer in chosen):
        raise ModelError(f"layers: expected numbers from 0 to {count - 1}, found {chosen}")
    student: Any = type(teacher)(cut_config(getattr(teacher, "config", None), count, chosen))
    take_layers(student, teacher, chosen)
    first = next(teacher.parameters())
    made: Network = student.to(device=first.device, dtype=first.dtype).train(teacher.training)
    return made


def take_layers(student: nn.Module, teacher: nn.Module, layers: Sequence[int]) -> None:
    """Copies those layers of a teacher, its embeddings, final norm and head into a student that has as many layers.
    Raises ModelError as `cut_layers` does.
    """
    prefix = _layers_of(teacher, _count(teacher))
    state = _renamed(teacher, prefix, list(layers))
    theirs = {name: value.shape for name, value in student.state_dict().items()}
    other = next((name for name in [*theirs, *state] if theirs.get(name) != _shape(state.get(name))), None)
    if other is not None:
        raise ModelError(
            f"{type(teacher).__name__}: its layers {', '.join(map(str, layers))} cannot be the layers of a network of "
            f"{len(layers)}, in which the number of a layer decides its kind: {other} is not in both; take others"
        )
    student.load_state_dict(state)


def _shape(value: torch.Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _count(teacher: nn.Module) -> int:
    """The number of layers. Raises ModelError where that is not known."""
    count = getattr(getattr(teacher, "config", None), "num_hidden_layers", None)
    if not isinstance(count, int):
        raise ModelError(
            f"{type(teacher).__name__}: has no config.num_hidden_layers; causal models of transformers do"
        )
    return count


def _layers_of(network: nn.Module, count: int) -> str:
    """The name of the list of layers, as `model.layers.`. Raises ModelError where it is not one."""
    found = [
        name
        for name, each in network.named_modules()
        if isinstance(each, nn.ModuleList) and len(each) == count
    ]
    if len(found) != 1:
        raise ModelError(
            f"{type(network).__name__}: {len(found)} lists of {count} layers are found in it, where one is expected"
        )
    return f"{found[0]}."


def _renamed(network: nn.Module, prefix: str, chosen: list[int]) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for name, value in network.state_dict().items():
        if not name.startswith(prefix):
            state[name] = value
            continue
        number, _, rest = name.removeprefix(prefix).partition(".")
        for place, layer in enumerate(chosen):
            if layer == int(number):
                state[f"{prefix}{place}.{rest}"] = value
    return state
