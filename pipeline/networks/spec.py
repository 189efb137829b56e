"""What builds a network: its name and arguments, and the shapes and statistics of the data that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from decant.pipeline.config.sections import Count
from decant.pipeline.support.checked_json import Finite

KEPT_CLASSES = "kept_classes"
"""The argument that says which outputs of a network of more classes are kept: `{columns = [2, 5, 9], of = 10}`."""
CAUSAL = "causal"
"""The argument that holds the whole configuration of a causal language model of the transformers library."""
_FEW = 3
"""Arguments that a table has room for: the configuration, which is not shown, and two others."""
_SIZES = (("num_hidden_layers", "n_layer", "num_layers", "n_layers"), ("hidden_size", "n_embd", "d_model"))
"""What configurations of the transformers library call the number of layers, and the size of a hidden state."""


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
