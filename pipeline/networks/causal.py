"""Causal language models of the transformers library: from their configuration alone, with fresh weights, or as one in
a folder, a .gguf file or on the hub has it.

A spec of one holds the whole configuration, so that a run builds its network again where neither is at hand.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from decant.pipeline.config.language_settings import CUT
from decant.pipeline.config.settings import Network
from decant.pipeline.errors import ModelError, nearest
from decant.pipeline.networks.library_config import (
    kept,
    one_line,
    require_not_deep,
    with_numbers,
    without_code,
)
from decant.pipeline.networks.spec import CAUSAL, NetworkSpec
from decant.pipeline.support.hub import find_model
from decant.pipeline.support.plugins import in_words, optional

ELSEWHERE = "transformers:"
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_GIVEN = ("vocab_size", "tie_word_embeddings")
_DECIDING = (
    "model_type",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
)
"""What of a configuration decides logits, and is not in the weights."""


def specify_causal(
    network: Network,
    num_outputs: int,
    max_length: int,
    tokens: Mapping[str, int | None],
    teacher: NetworkSpec | None,
) -> NetworkSpec:
    """The spec of a language model for so many tokens, and samples of at most `max_length`.

    tokens: ids of special tokens, as `eos_token_id`, for one with fresh weights. teacher: what "cut" takes its layers
    from. Raises ModelError, naming the setting.
    """
    try:
        if network.name == CUT:
            config = _cut_of(network, teacher)
        elif network.name.startswith(ELSEWHERE):
            config = kept(configuration(network.name.removeprefix(ELSEWHERE)))
        else:
            config = kept(_fresh(network, num_outputs, max_length, tokens))
        _require_fits(config, num_outputs, max_length)
    except ModelError as error:
        raise ModelError(f"network {network.name!r}: {error}") from error.__cause__
    return NetworkSpec(network.name, {**network.args, CAUSAL: config}, num_outputs, (max_length,), (), ())


def config_of(told: Mapping[str, Any]) -> Any:
    """The library's object of a configuration that a spec keeps. Raises ModelError."""
    transformers = optional("transformers", "text", ModelError)
    require_not_deep(told)
    try:
        held = without_code(with_numbers(told))
        return transformers.AutoConfig.for_model(held.pop("model_type"), **held)
    except Exception as error:  # a value that no network has ends in any error of the library
        raise ModelError(f"its configuration cannot be read: {one_line(error)}") from error


def configuration(name: str) -> Any:
    """The configuration of a model in a folder, a .gguf file or on the hub. Raises ModelError."""
    transformers = optional("transformers", "text", ModelError)
    path, name, options = Path(name), find_model(name, ModelError), {}
    if path.suffix == ".gguf":
        name, options = str(path.parent), {"gguf_file": path.name}
    try:
        return transformers.AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder ends in any error of the library
        raise ModelError(f"its configuration cannot be read: {in_words(error)}") from error


def deciding_settings(config: Any) -> dict[str, Any]:
    """The settings of a configuration of transformers that decide logits, and are not in the weights; none without one.

    >>> from types import SimpleNamespace
    >>> deciding_settings(SimpleNamespace(num_attention_heads=4, vocab_size=9))
    {'num_attention_heads': 4}
    """
    found = {key: value for key in _DECIDING if (value := getattr(config, key, None)) is not None}
    return dict(json.loads(json.dumps(found, default=str)))


_NUMBERS_OF_LAYERS = ("mlp_only_layers", "moe_layers", "attn_layer_indices")
"""What configurations call the numbers of their layers of one kind, where others have a value for each layer."""

_NOT_OF_LAYERS = ("architectures", "time_step_limit", "mlp_multipliers", "ssm_multipliers")
"""Lists that are not of layers, also where they are as long."""


def cut_config(config: Any, count: int, chosen: Sequence[int]) -> Any:
    """A configuration of the chosen of `count` layers, with what it says of each. It is of plain weights, also where
    the teacher's were read from a quantised file: a copy that says otherwise would be loaded as one.
    """
    cut = copy.deepcopy(config)
    vars(cut).pop("quantization_config", None)
    for name, value in vars(config).items():
        if name in _NUMBERS_OF_LAYERS and isinstance(value, list | tuple):
            setattr(cut, name, type(value)(place for place, layer in enumerate(chosen) if layer in value))
        elif isinstance(value, list | tuple) and len(value) == count and name not in _NOT_OF_LAYERS:
            setattr(cut, name, type(value)(value[layer] for layer in chosen))
    cut.num_hidden_layers = len(chosen)
    return cut


def _cut_of(network: Network, teacher: NetworkSpec | None) -> dict[str, Any]:
    layers = network.args["layers"]
    if teacher is None or CAUSAL not in teacher.args:
        raise ModelError("is made of its teacher's layers, and there is no teacher")
    config = config_of(teacher.args[CAUSAL])
    count = int(config.num_hidden_layers)
    if any(not 0 <= layer < count for layer in layers):
        raise ModelError(
            f"layers: expected numbers from 0 to {count - 1} of the teacher's layers, found {layers}"
        )
    unknown = next((name for name in network.args if name != "layers"), None)
    if unknown is not None:
        raise ModelError(f"unknown argument {unknown!r}; it takes layers alone")
    return kept(cut_config(config, count, layers))


def _fresh(network: Network, num_outputs: int, max_length: int, tokens: Mapping[str, int | None]) -> Any:
    """The configuration of a kind of the library with the given sizes. Raises ModelError for one that it has not."""
    transformers = optional("transformers", "text", ModelError)
    kinds = sorted(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if network.name not in kinds:
        raise ModelError(
            f"unknown kind of language model; {nearest(network.name, kinds)} (or {ELSEWHERE}NAME)"
        )
    usual = transformers.AutoConfig.for_model(network.name)
    known = {**usual.to_dict(), **getattr(type(usual), "attribute_map", {})}
    for name in network.args:
        if name not in known or name in _GIVEN[:1]:
            given = "; it is the number of the tokenizer's tokens" if name in _GIVEN else ""
            raise ModelError(f"unknown argument {name!r}{given or '; ' + nearest(name, sorted(known))}")
    sizes: dict[str, Any] = {"vocab_size": num_outputs, **tokens}
    positions = next((name for name in _POSITIONS if name in known), None)
    if positions is not None and positions not in network.args:
        sizes[positions] = max_length
    try:
        return transformers.AutoConfig.for_model(network.name, **{**sizes, **network.args})
    except Exception as error:  # newer versions check each value with errors of their own
        raise ModelError(one_line(error)) from error


def _require_fits(config: Mapping[str, Any], num_outputs: int, max_length: int) -> None:
    """Raises ModelError where a network has fewer outputs than there are tokens, or fewer positions than a sample."""
    rows = config.get("vocab_size")
    if isinstance(rows, int) and rows < num_outputs:
        raise ModelError(
            f"knows {rows:,} tokens, and the tokenizer has {num_outputs:,}; give data.tokenizer its own"
        )
    positions = next((config[name] for name in _POSITIONS if isinstance(config.get(name), int)), max_length)
    if positions < max_length:
        raise ModelError(
            f"takes {positions:,} tokens at most; set data.max_length, which is {max_length:,}, to {positions}"
        )
