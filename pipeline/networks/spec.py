"""What builds a network: its name and arguments, and the shapes and statistics of the data that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from decant.pipeline.config.sections import Count
from decant.pipeline.config.settings import Network
from decant.pipeline.data.samples import channel_statistics, num_outputs, vocabulary
from decant.pipeline.errors import ModelError
from decant.pipeline.networks import text
from decant.pipeline.support.checked_json import Finite
from decant.pipeline.views import ViewedData

KEPT_CLASSES = "kept_classes"
"""The argument that says which outputs of a network of more classes are kept: `{columns = [2, 5, 9], of = 10}`."""
CAUSAL = "causal"
"""The argument that holds the whole configuration of a causal language model of the transformers library."""
_FEW = 3
"""Arguments that a table has room for: the configuration, which is not shown, and two others."""
_SIZES = (("num_hidden_layers", "n_layer", "num_layers", "n_layers"), ("hidden_size", "n_embd", "d_model"))
"""What configurations of the transformers library call the number of layers, and the size of a hidden state."""
_RESERVED = ("num_classes", "input_shape", "vocabulary", "fetch", KEPT_CLASSES)


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that is needed to build a network again.

    >>> str(NetworkSpec("conv", {"width": 8}, num_classes=10, input_shape=(1, 8, 8), mean=(0.3,), std=(0.4,)))
    'conv width=8'
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    name: str
    args: dict[str, Any]
    num_classes: Count
    """C of the logits (B, C), after columns were left out; T, the number of targets, for a regression."""
    input_shape: Annotated[tuple[Count, ...], Field(strict=False, min_length=1, max_length=3)]
    """(C, H, W) of images, (F,) of features, (L,) of texts."""
    mean: Annotated[tuple[Finite, ...], Field(strict=False)]
    """Of each channel or feature, which inputs are normalised by; empty for texts."""
    std: Annotated[tuple[Finite, ...], Field(strict=False)]

    def __str__(self) -> str:
        """Name and arguments, without the two that the tokenizer and the network of a text task supply."""
        hidden = ("vocabulary", "config", CAUSAL, KEPT_CLASSES)
        shown = [f"{name}={value}" for name, value in self.args.items() if name not in hidden]
        if KEPT_CLASSES in self.args:
            shown.append(f"classes={self.num_classes} of {self.own_outputs}")
        return " ".join([self.name, *shown])

    @property
    def short(self) -> str:
        """A name for tables: of a language model that more than two arguments describe, its layers and its width.

        >>> args = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        >>> spec = NetworkSpec("llama", {**args, "causal": args}, num_classes=1024, input_shape=(64,), mean=(), std=())
        >>> spec.short, str(spec)
        ('llama (2 layers of 96)', 'llama hidden_size=96 num_hidden_layers=2 num_attention_heads=4')
        """
        config = self.args.get(CAUSAL)
        if not isinstance(config, dict) or len(self.args) <= _FEW:
            return str(self)
        layers, width = (next((config[key] for key in keys if key in config), None) for keys in _SIZES)
        if layers is None or width is None:
            return str(self)
        return f"{self.name} ({layers} layer{'' if layers == 1 else 's'} of {width})"

    @property
    def own_outputs(self) -> int:
        """How many outputs the network itself has, of which some may be left out."""
        return int(self.args.get(KEPT_CLASSES, {}).get("of", self.num_classes))


def specify_network(network: Network, viewed: ViewedData) -> NetworkSpec:
    """The spec of `network` for views of these data.

    Inputs are normalised by the statistics of the data, or by the arguments `mean` and `std`, which weights from
    elsewhere need. Texts are not normalised. Raises ModelError.
    """
    args, tokens = network.args, vocabulary(viewed.data)
    reserved = next((name for name in _RESERVED if name in args), None)
    if reserved is not None:
        raise ModelError(
            f"network {network.name!r}: {reserved}: is a reserved argument, given by the data "
            f"({num_outputs(viewed.data):,} outputs, inputs of shape {viewed.input_shape}); leave it out"
        )
    if tokens is not None:
        outputs = num_outputs(viewed.data)
        args = text.arguments(network.name, args, outputs, viewed.data.classes, viewed.input_shape, tokens)
        return NetworkSpec(network.name, args, outputs, viewed.input_shape, (), ())
    if text.is_for_texts(network.name):
        raise ModelError(f"network {network.name!r}: takes texts, and {viewed.data.name} has none")
    mean, std = channel_statistics(viewed.data)
    mean = _per_channel(network, "mean", args.pop("mean", mean))
    std = _per_channel(network, "std", args.pop("std", std))
    return NetworkSpec(
        network.name, args, num_outputs(viewed.data), viewed.input_shape, tuple(mean), tuple(std)
    )


def _per_channel(network: Network, name: str, values: Any) -> list[float]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ModelError(
            f"network {network.name!r}: {name}: expected a list, a number a channel, got {values!r}"
        )
    return [float(value) for value in values]
