"""The section `[cache]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from decant.pipeline.config.sections import Count, Section


class EncodingSettings(Section):
    """`[cache.encoding]`: a compact way to store the logits."""

    kind: Literal["dense", "dense-u8", "sparse", "hidden"]
    """ "dense-u8" is a byte for each logit, on a scale of its row; "sparse" is the largest logits of a row, and the
    mass of all others at each temperature that a student may use. Of a language model alone: "dense", every logit in
    `dtype`; "hidden", what its head is applied to, and the head once: exact at every temperature.
    """
    head: Annotated[int, Field(ge=0, lt=2**16)] | None = None
    """Of sparse: how many of the largest logits of a row are kept, at most the number of classes; None is 64, or 0
    where there are draws.
    """
    draws: Count | None = None
    """Of sparse: how many more are drawn by chance, each with a known probability, so that students learn from an
    unbiased estimate of the softmax. For many views, or one pass over much data: the same draws, read often, are
    memorised.
    """
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Of the draws; None is 0."""
    temperatures: (
        Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=16, strict=False)] | None
    ) = None
    """Of sparse: T at which students may learn, in rising order, with 1 among them; None is 1 alone."""
    views: Count | None = None
    """Of the draws of a language model's rows: V, how many draws of each row are stored; epoch e of a student reads
    those of view e mod V. None is 1.
    """

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A setting that came later is left out where it is not given, so that notes of older runs are found."""
        return {name: value for name, value in handler(self).items() if name != "views" or value is not None}

    @model_validator(mode="after")
    def _fits(self) -> EncodingSettings:
        if self.kind != "sparse" and (self.head is not None or self.temperatures is not None):
            raise ValueError('head: belongs to kind = "sparse", as temperatures do; leave them out')
        if self.kind != "sparse" and (self.draws is not None or self.seed is not None):
            raise ValueError('draws: belongs to kind = "sparse", as seed does; leave them out')
        if self.draws is None and self.views is not None:
            raise ValueError("views: are other draws; give draws too, or leave it out")
        if self.draws is None and self.head == 0:
            raise ValueError("head: expected a whole number at least 1, or draws beside it, found 0")
        if self.draws is None and self.seed is not None:
            raise ValueError("seed: is of draws; give these too, or leave it out")
        given = self.temperatures
        if given is not None and (list(given) != sorted(set(given)) or 1.0 not in given):
            raise ValueError(f"temperatures: must rise and have 1 among them, found {list(given)}")
        return self


def _encoding_by_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class CacheSettings(Section):
    """`[cache]`: how the logits are computed and stored."""

    dtype: Literal["float16", "float32"] = "float16"
    """How the logits are stored; float16 takes half the space."""
    encoding: Annotated[EncodingSettings | None, BeforeValidator(_encoding_by_name)] = None
    """How they are stored in less: "dense-u8", "sparse", or a table as
    `{ kind = "sparse", head = 64, temperatures = [1.0, 4.0] }`. None is every logit in `dtype`, and of a language
    model "sparse" with a head of 64.
    """
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the teacher computes in."""
    batch_size: Count = 256
    """Samples in a batch of the teacher's pass; it is no part of the key."""
    tokens_per_batch: Count | None = None
    """Of a language model, in place of it: tokens in a batch, with padding; None is 4,096. It is no part of the key."""
    from_: Annotated[str | tuple[str, ...] | None, Field(alias="from", min_length=1)] = None
    """A cache file, or the address of one, to use as it is, from a colleague say, instead of the one that this recipe's
    teacher makes; or several of the same data, whose teachers then teach together.
    """
    remote: Annotated[Literal["whole", "lazy"], Field(exclude=True)] = "whole"
    """How a cache is fetched that lies elsewhere, in the store or at an address in `from`: as a whole before training,
    or block by block as a student reads it.
    """
    ensemble: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over several teachers: softmaxes (or sigmoids) at the objective's temperature, or logits (always
    the outputs of a regression).
    """
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """What each of several teachers counts in that mean, by its share of the sum; None is all alike."""
    table: Literal["auto", "mapped", "ram", "device"] = "auto"
    """Where a student reads the logits: the mapped file, a copy in memory, or a copy on its device, beside the
    inputs; `auto` is the device where that is a GPU and has the room, a copy in memory of what lies on a network
    mount and fits, else the file.
    """

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A setting that came later is left out where it is not given, so that notes of older runs are found."""
        return {
            name: value
            for name, value in handler(self).items()
            if name != "tokens_per_batch" or value is not None
        }
