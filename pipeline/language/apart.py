"""Whether a network keeps samples apart that a collator put into one row."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.language.head import are_close
from decant.pipeline.support.modules import RAISED

_MOST = 16  # tokens of each of two samples


def are_in_one_row(inputs: dict[str, Tensor]) -> bool:
    """Whether rows of a batch hold several samples each, whose positions begin again."""
    positions = inputs.get("position_ids")
    if positions is None or "attention_mask" in inputs:
        return False
    return bool(_begins_anew(positions).any())


@torch.no_grad()
def require_apart(network: nn.Module, inputs: dict[str, Tensor]) -> None:
    """Raises ModelError for a network to which the second sample of a row says something else than it does alone.

    network: the one inside all wrappers. inputs: `input_ids` and `position_ids` (B, L) of a batch. Where the network
    cannot be called so, as some attention takes half precision alone, nothing is found out.
    """
    row = int(_begins_anew(inputs["position_ids"]).any(1).nonzero()[0])
    ids, positions = inputs["input_ids"][row], inputs["position_ids"][row]
    begins = [0, *(1 + torch.nonzero(_begins_anew(positions))[:2, 0]).tolist()]
    ends = [*begins[1:], len(ids)]
    parts = [slice(begin, min(end, begin + _MOST)) for begin, end in zip(begins, ends, strict=False)][:2]
    both = [torch.cat([values[part] for part in parts])[None] for values in (ids, positions)]
    alone = [values[parts[1]][None] for values in (ids, positions)]
    was_training = network.training
    network.eval()
    try:
        with torch.autocast(ids.device.type, enabled=False):
            together, expected = _logits(network, *both), _logits(network, *alone)
    except RAISED:
        return
    finally:
        network.train(was_training)
    found = together[:, -expected.shape[1] :]
    if not are_close(found, expected, expected.dtype):
        raise ModelError(
            f"{type(network).__name__}: does not keep samples apart that are in one row: its outputs for the second "
            "change with the first, whatever position_ids say, and the teacher read each alone; pad them, by a "
            "TokenDataset without collator"
        )


def _begins_anew(positions: Tensor) -> Tensor:
    """(…, L − 1) whether the position after each is no later one, so that a sample begins there."""
    return positions.diff() <= 0


def _logits(network: nn.Module, ids: Tensor, positions: Tensor) -> Tensor:
    takes = inspect.signature(network.forward).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    given = {"position_ids": positions, "use_cache": False}
    named = {name: value for name, value in given.items() if name in takes or any_name}
    found: Tensor = network(input_ids=ids, **named).logits
    return found
