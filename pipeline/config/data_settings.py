"""The section `[data]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

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
TOKENS = "tokens"
"""The name of data that are texts of a language model."""
_OF_TOKENS = (
    "train",
    "test_share",
    "rows",
    "across",
    "truncation",
    "targets",
    "column",
    "separator",
    "end_of_text",
    "chat_template",
)


class DataSettings(Section):
    """`[data]`: which images or arrays, and where they lie."""

    name: str
    """A dataset that ships, `imagefolder`, `text`, `webdataset`, `parquet` or `npy` for files in `root`, `hf:NAME` for
    one of Hugging Face's hub (`hf:NAME:CONFIG`), `hf` for what `save_to_disk` wrote into `root`, or
    `package.module:function`; `tokens` for the texts of a language model.
    """
    root: str = "data"
    """Where downloads are kept, or the image folder itself. Of `tokens`: a .txt, .jsonl or Parquet file, a folder of
    these, or what `save_to_disk` wrote; `hf:NAME` or `hf:NAME:CONFIG` for texts of Hugging Face's hub; `python-topics`
    for the reference texts that come with Python.
    """
    pack: Annotated[Literal["auto", "always", "never"], Field(exclude=True)] = "auto"
    """Whether an image folder is decoded once, or texts are tokenised once, into a file beside the caches: where it
    fits, in any case, or never. It decides no pixel, so no run is another for it, and resolved recipes leave it out.
    """
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    """What turns texts into tokens: the folder of a tokenizer of the transformers library, or its name on the hub. Of
    `tokens` also "bytes", a token for each byte, or "bpe:SIZE", a byte-level BPE of so many tokens that is learnt from
    the training texts; None is the teacher's.
    """
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

    train: Annotated[str, Field(min_length=1)] | None = None
    """Of `tokens`: the part of `root` that networks learn from, as "train_sft"; None is "train", where there is one."""
    test_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of `tokens` whose `root` is one corpus: the share of its documents that networks are measured on; None is 0.1."""
    rows: Literal["documents", "pieces", "packed"] | None = None
    """Of `tokens`, what a sample is: a document, cut at `max_length`; a piece of `max_length` of one; or `max_length`
    tokens of all documents one after the other. None is "documents".
    """
    across: bool | None = None
    """Of packed rows: whether a token sees the documents before its own in the row; None is false."""
    truncation: Literal["left", "right"] | None = None
    """Of `tokens`: at which end a document is cut; None is "right"."""
    targets: Literal["all", "assistant"] | None = None
    """Of `tokens`, what is learnt from: every token, or what the assistant of a chat writes, and completions. None is
    "all".
    """
    column: str | tuple[str, str] | None = None
    """Of `tokens`: the column of the text or the messages, or the two of a prompt and its completion; None takes
    `text`, `messages`, or `prompt` and `completion`.
    """
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Of `tokens`: what stands between the documents of a .txt file; None takes a file as one."""
    end_of_text: bool | None = None
    """Of `tokens`: whether texts and completions end in the tokenizer's end-of-text token; None is true."""
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """Of `tokens`: a file with the template that chats are written by; None is the tokenizer's own."""

    @property
    def of_tokens(self) -> bool:
        """Whether these are texts of a language model, which predicts each next token."""
        return self.name == TOKENS

    @model_validator(mode="after")
    def _has_tokenizer(self) -> DataSettings:
        if self.name == "text" and self.tokenizer is None:
            raise ValueError("tokenizer: missing; give the folder of one, or its name on the hub")
        for key in ("tokenizer", "max_length"):
            if self.name not in ("text", TOKENS) and getattr(self, key) is not None:
                raise ValueError(f'{key}: is of texts, name = "text" or "tokens"; leave it out')
        for key in _OF_TOKENS:
            if not self.of_tokens and getattr(self, key) is not None:
                raise ValueError(f'{key}: is of texts of a language model, name = "tokens"; leave it out')
        return self

    @model_validator(mode="after")
    def _fits_tokens(self) -> DataSettings:
        if not self.of_tokens:
            return self
        for key in ("transfer", "task"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key}: is of samples with labels, and these are tokens; leave it out")
        if self.max_length == 1:
            raise ValueError("max_length: expected 2 or more, as a token is predicted from those before it")
        if self.across is not None and self.rows != "packed":
            raise ValueError('across: is of rows = "packed"; leave it out')
        if self.truncation is not None and self.rows not in (None, "documents"):
            raise ValueError('truncation: is of rows = "documents"; leave it out')
        if self.test is not None and self.test_share is not None:
            raise ValueError("test_share: give either that, of the documents, or `test`, a part of its own")
        share = self.validation.share if self.validation else None
        if self.validation and self.validation.seed:
            raise ValueError("validation.seed: a document's part is decided by its content; leave it out")
        if share is not None and share + (self.test_share or 0.1) >= 1:
            raise ValueError("validation.share: leaves no document to train on beside test_share")
        return self

    @model_validator(mode="after")
    def _has_parts(self) -> DataSettings:
        parts = self.name in ("imagefolder", TOKENS, *READ_BY_ITEM) or ":" in self.name
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
        if part is not None and part == self.train:
            raise ValueError(f"validation.part: {part!r} is what networks are trained on; name another part")
        if part is not None and self.transfer is not None and part == self.transfer.part:
            raise ValueError(f"validation.part: {part!r} is what students are trained on; name another part")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A setting that came later is left out where it is not given, so that notes of older runs are found."""
        later = ("validation", *_OF_TOKENS)
        return {
            name: value for name, value in handler(self).items() if name not in later or value is not None
        }

    @model_validator(mode="after")
    def _fits_source(self) -> DataSettings:
        own = ":" in self.name or self.name in READ_BY_ITEM
        if self.test is not None and self.name not in ("imagefolder", "text", TOKENS) and not own:
            raise ValueError(f"test: {self.name} has one test part; leave it out")
        taken = (self.train or "train", self.transfer.part if self.transfer else None)
        if self.test is not None and self.test in taken:
            raise ValueError(f"test: {self.test!r} is what networks are trained on; name another part")
        for key, files in (("keys", ("hf", "parquet", "webdataset")), ("axes", ("hf", "npy"))):
            if ":" not in self.name and self.name not in files and getattr(self, key) is not None:
                raise ValueError(f"{key}: is of a dataset of your own, package.module:function; leave it out")
        return self
