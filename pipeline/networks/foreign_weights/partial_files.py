"""Files that do not fit because they hold a part of a network or of its training, or because a library renames what it
reads: told by the names of tensors and classes.
"""

from __future__ import annotations

import re

from torch import nn

from decant.pipeline.networks.foreign_weights.tensors import Tensors

_OPTIMIZER = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "step"}
_INSIDE = (
    (
        re.compile(r"(^|\.)lora_[AB]\.|\.lora_(up|down)\."),
        "it has LoRA adapters: merge them into the weights first, as with merge_and_unload() of PEFT",
    ),
    (
        re.compile(r"weight_mask$"),
        "it has masks of pruning: make them permanent first, with torch.nn.utils.prune.remove(module, NAME)",
    ),
    (re.compile(r"flat_param$"), "it has the flat parameters of FSDP: save a full state dict"),
    (
        re.compile(r"(fp32_groups|fp32_flat_groups|bit16_groups)\.\d+$"),
        "it is a part of a DeepSpeed run: give what zero_to_fp32.py makes of them",
    ),
)


def advice(module: nn.Module, found: Tensors) -> str:
    """The end of a message about a file that does not fit `module`; empty where nothing is known about it."""
    known = what_is_partial(found)
    of_transformers = any(type(part).__module__.startswith("transformers.") for part in module.modules())
    if not known and of_transformers:
        known = (
            "transformers may give its tensors other names when it reads a file: have your function load it, with "
            "from_pretrained(FOLDER)"
        )
    return f"; {known}" if known else ""


def what_is_partial(found: Tensors) -> str:
    """What to do about a file of tensors that fit no network as they are; empty where they tell nothing.

    >>> import torch
    >>> what_is_partial(Tensors.of({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}))
    "it has an optimizer's state alone: the weights lie in another file, or were not saved"
    """
    places = list(found.by_path)
    if places and {place.rpartition(".")[2] for place in places} <= _OPTIMIZER:
        return "it has an optimizer's state alone: the weights lie in another file, or were not saved"
    for pattern, advice in _INSIDE:
        if any(pattern.search(place) for place in places):
            return advice
    floats = [tensor for tensor in found.by_path.values() if tensor.is_floating_point()]
    if floats and not any(tensor.numel() for tensor in floats):
        return (
            "all of its tensors are empty, as in a part of a DeepSpeed ZeRO 3 run: give what zero_to_fp32.py makes of "
            "them"
        )
    return ""
