"""What is doubtful of a causal network, and said once."""

from __future__ import annotations

from torch import nn

from decant.pipeline.support.notices import say_once

_SHARE, _FEWEST = 0.05, 1000


def say_if_of_other_tokens(name: str, outputs: int, tokens: int) -> None:
    """Says once that a network has so many more outputs than there are tokens that its vocabulary is another one.
    Vocabularies are padded by some hundreds, or 2 %.
    """
    if outputs - tokens > max(_FEWEST, _SHARE * tokens):
        say_once(
            f"{name}: has {outputs:,} outputs, and the tokenizer of the texts {tokens:,} tokens, which is more than a "
            "vocabulary is padded by: if it was trained with another tokenizer, the tokens of these texts mean other "
            "words to it",
            about=f"{outputs:,} outputs of {tokens:,} tokens",
        )


def say_if_router_loss_is_left_out(network: nn.Module) -> None:
    """Says once that a mixture of experts is trained without the loss that balances them, where its configuration asks
    for it.
    """
    config = getattr(network, "config", None)
    if getattr(config, "output_router_logits", False):
        say_once(
            f"{type(network).__name__}: output_router_logits is set, and the loss that balances its experts is left "
            "out: the loss is the objective alone; in a loop of your own add outputs.aux_loss times "
            "router_aux_loss_coef"
        )
