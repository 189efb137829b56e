"""The section `[data]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from decant.pipeline.config.sections import Count, Section
from decant.pipeline.config.tasks import Task


class TransferSettings(Section):
    """`data.transfer`: samples that the teacher is not trained on; its logits are cached for them, and students
    train on them.
    """

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the training part, held out from the teacher."""
    part: Annotated[str, Field(min_length=1)] | None = None
    """Or a part of its own: the folder of that name beside train/, or what a function of your own returns for it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Which samples the share is."""
    labels: bool = True
    """Whether labels are known there; where not, the teacher alone speaks of them."""

    @model_validator(mode="after")
    def _one_of_two(self) -> TransferSettings:
        if (self.share is None) == (self.part is None):
            raise ValueError("share: give either that, of the training part, or `part`, a part of its own")
        if self.part in ("train", "test", "val"):
            raise ValueError(f"part: {self.part!r} has another use; name a part of its own")
        return self


class ValidationSettings(Section):
    """`data.validation`: samples that neither teacher nor student is trained on, by which epochs and settings are
    chosen, so that the test part is measured once, at the end. A number alone is the share, a text the part.
    """

    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the training part; of each class alike."""
    part: Annotated[str, Field(min_length=1)] | None = None
    """Or a part of its own: the folder of that name beside train/, or what a function of your own returns for it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Which samples the share is."""

    @model_validator(mode="after")
    def _one_of_two(self) -> ValidationSettings:
        if (self.share is None) == (self.part is None):
            raise ValueError("share: give either that, of the training part, or `part`, a part of its own")
        if self.part == "train":
            raise ValueError(
                "part: 'train' is what networks are trained on; name another part, or give `share`"
            )
        return self


def share_or_part(value: Any) -> Any:
    """The table that a number or a text stands for in `data.validation`; any other value as it is.

    >>> share_or_part(0.1), share_or_part("val")
    ({'share': 0.1}, {'part': 'val'})
    """
    if isinstance(value, str):
        return {"part": value}
    return {"share": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


READ_BY_ITEM = ("hf", "webdataset", "parquet", "npy")
"""Sources in files whose items are read one by one, as those of a user's own dataset are."""


class DataSettings(Section):
    """`[data]`: which images or arrays, and where they lie."""

    name: str
    """A dataset that ships, `imagefolder`, `text`, `webdataset`, `parquet` or `npy` for files in `root`, `hf:NAME` for
    one of Hugging Face's hub (`hf:NAME:CONFIG`), `hf` for what `save_to_disk` wrote into `root`, or
    `package.module:function`.
    """
    root: str = "data"
    """Where downloads are kept, or the image folder itself."""
    pack: Annotated[Literal["auto", "always", "never"], Field(exclude=True)] = "auto"
    """Whether an image folder is decoded once, or texts are tokenised once, into a file beside the caches: where it
    fits, in any case, or never. It decides no pixel, so no run is another for it, and resolved recipes leave it out.
    """
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """What turns texts into tokens: the folder of a tokenizer of the transformers library, or its name on the hub."""
    max_length: Count | None = None
    """Tokens that a text is cut at; None is 128."""
    transfer: TransferSettings | None = None
    """What students learn from, where it is not what the teacher learnt from."""
    validation: Annotated[ValidationSettings | None, BeforeValidator(share_or_part)] = None
    """What epochs and settings are chosen by: a share of the training part (`0.1`), or a part of its own (`"val"`).
    None chooses nothing, and each epoch is measured on the test part.
    """
    test: Annotated[str, Field(min_length=1)] | None = None
    """The part that networks are measured on: the folder's name, or what a function of your own is given as `split`.
    None is the first that is there of test, val, valid and validation; `"test"` for a function.
    """
    keys: tuple[str | int, str | int] | None = None
    """Where the input and the label lie in an item of your own dataset: `["image", "label"]` of a dictionary,
    `[0, 1]` of a longer tuple; the columns of `hf` and `parquet`, the endings of `webdataset`. None takes items that
    are (input, label), and columns and endings that can be told.
    """
    axes: Literal["CHW", "HWC"] | None = None
    """The order of the axes of arrays from your own dataset; "HWC" takes grey (H, W) too. None takes (C, H, W), and
    refuses arrays that look like (H, W, C).
    """
    task: Task | None = None
    """What the labels mean. `"binary"`: 0 or 1, of a network with one output; `"multilabel"`: a row of 0 and 1, one
    entry a class; both have a sigmoid for each output, and −1 or NaN is an unknown label. None takes integers for
    `"classification"` and floats for `"regression"`.
    """

    @model_validator(mode="after")
    def _has_tokenizer(self) -> DataSettings:
        if self.name == "text" and self.tokenizer is None:
            raise ValueError("tokenizer: missing; give the folder of one, or its name on the hub")
        for key in ("tokenizer", "max_length"):
            if self.name != "text" and getattr(self, key) is not None:
                raise ValueError(f'{key}: is of texts, name = "text"; leave it out')
        return self

    @model_validator(mode="after")
    def _has_parts(self) -> DataSettings:
        parts = self.name == "imagefolder" or self.name in READ_BY_ITEM or ":" in self.name
        if self.transfer and self.transfer.part and not parts:
            raise ValueError(f"transfer.part: {self.name} has train and test parts alone; set transfer.share")
        if self.validation and self.validation.part and not parts and self.name != "text":
            raise ValueError(
                f"validation.part: {self.name} has train and test parts alone; set validation.share"
            )
        return self

    @model_validator(mode="after")
    def _validates_apart(self) -> DataSettings:
        part = self.validation.part if self.validation else None
        if part is not None and part == (self.test or "test"):
            raise ValueError(f"validation.part: {part!r} is what networks are measured on; name another part")
        if part is not None and self.transfer is not None and part == self.transfer.part:
            raise ValueError(f"validation.part: {part!r} is what students are trained on; name another part")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A setting that came later is left out where it is not given, so that notes of older runs are found."""
        return {name: value for name, value in handler(self).items() if name != "validation" or value}

    @model_validator(mode="after")
    def _fits_source(self) -> DataSettings:
        own = ":" in self.name or self.name in READ_BY_ITEM
        if self.test is not None and self.name not in ("imagefolder", "text") and not own:
            raise ValueError(f"test: {self.name} has one test part; leave it out")
        taken = ("train", self.transfer.part if self.transfer else None)
        if self.test is not None and self.test in taken:
            raise ValueError(f"test: {self.test!r} is what networks are trained on; name another part")
        for key, files in (("keys", ("hf", "parquet", "webdataset")), ("axes", ("hf", "npy"))):
            if ":" not in self.name and self.name not in files and getattr(self, key) is not None:
                raise ValueError(f"{key}: is of a dataset of your own, package.module:function; leave it out")
        return self
