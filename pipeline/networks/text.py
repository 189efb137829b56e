"""A network for texts by name: bert, transformers:FOLDER_OR_HUB and package.module:function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError, WeightsError
from decant.pipeline.networks import bert, external
from decant.pipeline.networks.builders import Shape
from decant.pipeline.networks.kept_columns import KeepsColumns, check_outputs
from decant.pipeline.networks.registry import check_arguments

_ELSEWHERE = "transformers:"
_REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)


class TextNetwork(KeepsColumns):
    """`body(input_ids=…, attention_mask=…)`, both (B, L) int64 → logits (B, num_classes)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        output = self.body(**inputs)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return self.kept(logits)


def is_for_texts(name: str) -> bool:
    """Whether a network takes texts and nothing else; of a function of the user's that is not known."""
    return name == "bert" or name.startswith(_ELSEWHERE)


def arguments(
    name: str,
    args: dict[str, Any],
    num_classes: int,
    classes: Sequence[str],
    input_shape: Shape,
    vocabulary: int,
) -> dict[str, Any]:
    """All that builds the network again, without a folder or the hub: `args`, the size of the vocabulary, and the
    configuration of one from elsewhere. Raises ModelError.
    """
    if not is_for_texts(name) and (":" not in name or name.startswith(("torchvision:", "timm:"))):
        raise ModelError(
            f"network {name!r}: takes images or features, and the data are texts; write bert, "
            f"{_ELSEWHERE}FOLDER_OR_HUB or package.module:function"
        )
    complete = {**args, "vocabulary": vocabulary}
    if name.startswith(_ELSEWHERE):
        if args:
            raise ModelError(f"network {name!r}: unknown argument {next(iter(args))!r}; it takes none")
        try:
            complete["config"] = bert.read_configuration(
                name.removeprefix(_ELSEWHERE), num_classes, classes, vocabulary, input_shape
            )
        except ModelError as error:
            raise ModelError(f"network {name!r}: {error}") from error.__cause__
    return complete


def build_text_network(
    name: str,
    num_classes: int,
    *,
    input_shape: Shape,
    vocabulary: int,
    fetch: bool = True,
    **args: Any,
) -> TextNetwork:
    """The network `name` for texts of at most `input_shape[0]` tokens, giving float32 logits (B, num_classes).

    Weights are drawn from torch's global generator, but for those of `transformers:`, which are fetched unless `fetch`
    is false. Raises ModelError and WeightsError.
    """
    untrained = ""
    try:
        if name.startswith(_ELSEWHERE):
            body, untrained = bert.from_elsewhere(name.removeprefix(_ELSEWHERE), args["config"], fetch)
        elif ":" in name:
            args = {**args, "vocabulary": vocabulary}
            body = external.from_function(name, num_classes, input_shape, args)
        else:
            check_arguments(bert.bert, args)
            body = bert.bert(input_shape, num_classes, vocabulary, **args)
        network = TextNetwork(body)
        network.untrained_head = untrained
        _try_once(network, num_classes, input_shape)
        return network
    except (ModelError, WeightsError) as error:
        error.args = (f"network {name!r}: {error}",)
        raise


def _try_once(network: nn.Module, num_classes: int, input_shape: Shape) -> None:
    """Raises ModelError where a network cannot take texts of full length, or gives other than (2, num_classes)."""
    ids = torch.zeros(2, *input_shape, dtype=torch.int64)
    network.eval()
    try:
        with torch.no_grad():
            logits = network({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    except _REFUSALS as error:
        raise ModelError(
            f"cannot take texts of {input_shape[0]} tokens: {external.first_line(error)}"
        ) from error
    finally:
        network.train()
    check_outputs(logits, num_classes, "for two texts")
