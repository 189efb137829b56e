"""Text classifiers of the transformers library: BERT from its sizes (Devlin, Chang, Lee, Toutanova, 2019: "BERT:
Pre-training of Deep Bidirectional Transformers"), or any classifier from a folder or the hub.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import nn

from decant.pipeline.errors import ModelError, WeightsError
from decant.pipeline.networks.builders import Shape
from decant.pipeline.networks.library_config import (
    MOST_LAYERS,
    kept,
    one_line,
    quiet,
    require_not_deep,
    with_numbers,
    without_code,
)
from decant.pipeline.networks.library_networks import build
from decant.pipeline.support.hub import find_model
from decant.pipeline.support.plugins import optional


def bert(
    input_shape: Shape,
    num_classes: int,
    vocabulary: int,
    *,
    hidden: int = 128,
    layers: int = 2,
    heads: int = 2,
    intermediate: int = 512,
    dropout: float = 0.1,
) -> nn.Module:
    """`layers` of `heads` attention heads on `hidden` units, with `intermediate` units between; 110 million parameters
    at 768, 12, 12, 3072.
    """
    if not 1 <= layers <= MOST_LAYERS:
        raise ModelError(f"layers must be 1 to {MOST_LAYERS:,}, got {layers}")
    transformers = optional("transformers", "text", ModelError)
    config = transformers.BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        max_position_embeddings=input_shape[0],
        num_labels=num_classes,
    )
    return build(transformers.BertForSequenceClassification, config)


def read_configuration(
    name: str, num_classes: int, classes: Sequence[str], vocabulary: int, input_shape: Shape
) -> dict[str, Any]:
    """The configuration of a classifier in a folder or on the hub, for so many classes: with it the network is built
    again where neither is at hand. Raises ModelError where it cannot be read, or is not made for these texts, or has
    the same classes in another order.
    """
    config = _configuration(name)
    held = getattr(config, "vocab_size", vocabulary)
    if held < vocabulary:
        raise ModelError(
            f"knows {held:,} tokens, the tokenizer has {vocabulary:,}; give data.tokenizer its own"
        )
    positions = getattr(config, "max_position_embeddings", input_shape[0])
    if positions < input_shape[0]:
        raise ModelError(
            f"takes {positions:,} tokens at most; set data.max_length, which is {input_shape[0]:,}"
        )
    theirs = [str(config.id2label[label]) for label in sorted(config.id2label)]
    if _plain(theirs) != _plain(classes) and sorted(_plain(theirs)) == sorted(_plain(classes)):
        raise ModelError(
            f"has the classes {', '.join(theirs)}, and the data {', '.join(classes)}; write labels as integers from 0, "
            "in the order of the network"
        )
    return {**kept(config), "num_labels": num_classes}


def class_names(name: str) -> list[str]:
    """The classes of a classifier in a folder or on the hub. Raises ModelError where that cannot be read."""
    config = _configuration(name)
    return [str(config.id2label[label]) for label in sorted(config.id2label)]


def _configuration(name: str) -> Any:
    transformers = optional("transformers", "text", ModelError)
    try:
        return transformers.AutoConfig.from_pretrained(find_model(name, OSError), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"its configuration cannot be read: {one_line(error)}") from error


def from_elsewhere(name: str, config: dict[str, Any], fetch: bool) -> tuple[nn.Module, str]:
    """The classifier with the weights that lie in a folder or on the hub, as safetensors, and a fresh last layer where
    its classes are others; with `fetch` false it is built from `config` alone, and no weights are looked for. With it
    why there is a fresh layer, or an empty text.

    Raises WeightsError where weights cannot be had. No code of the folder or hub is run.
    """
    transformers = optional("transformers", "text", ModelError)
    require_not_deep(config)
    held = without_code(with_numbers(config))
    made = transformers.AutoConfig.for_model(held.pop("model_type"), **held)
    kind = transformers.AutoModelForSequenceClassification
    if not fetch:
        return build(functools.partial(kind.from_config, trust_remote_code=False), made), ""
    try:
        with quiet(transformers):
            body, info = kind.from_pretrained(
                find_model(name, OSError),
                config=made,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"cannot fetch its weights: {one_line(error)}") from error
    return body.float(), _fresh_layers(info, config["num_labels"])


def _fresh_layers(info: dict[str, Any], num_classes: int) -> str:
    """Why layers begin untrained, by what the library says of a loading: they are missing, or of other classes."""
    other = [(name, theirs[0]) for name, theirs, _ in info["mismatched_keys"]]
    if other:
        return f"{other[0][0]} is of {other[0][1]:,} classes, and the data have {num_classes:,}"
    missing = sorted(info["missing_keys"])
    return f"{missing[0]} is not among the weights" if missing else ""


def _plain(names: Sequence[str]) -> list[str]:
    return [name.lower() for name in names]
