"""Distillation of a causal language model in TRL's SFTTrainer."""

from __future__ import annotations

import copy
from typing import Any

from datasets import Dataset
from torch import nn
from trl import SFTConfig, SFTTrainer

from decant.pipeline.corpus.tokenizer import tokenizer_identity
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.integrations.language_trainer import TokenDistillationMixin
from decant.pipeline.language import TokenDataset

_IN_THE_DATASET = {
    "packing": 'lay out the samples so, by TokenSamples(…, rows="packed")',
    "eval_packing": 'lay out the samples so, by TokenSamples(…, rows="packed")',
    "padding_free": "give the dataset a collator that does so: TokenDataset(…, collator=DataCollatorWithFlattening())",
    "pad_to_multiple_of": "give the dataset a collator that does so: TokenDataset(…, collator=…)",
    "chat_template_path": "set the tokenizer's chat template before decant.language.tokenise",
    "eos_token": "set tokenizer.eos_token before decant.language.tokenise",
}
"""Settings of an SFTConfig that change which tokens a batch has, and where they are decided."""


class SFTDistillationMixin(TokenDistillationMixin):
    """Before an SFTTrainer among the parents of a class, makes its loss an objective of a student's logits and the
    teacher's rows: `class Mine(SFTDistillationMixin, MySFTTrainer)`. `SFTDistillationTrainer` is it with TRL's own.

    The tokens of a batch are those that the teacher read, and no others: what an SFTConfig says of tokenising, cutting,
    packing and masking is refused where it differs from the samples. Loss, logged terms and evaluation are those of
    `TokenDistillationTrainer`; `peft_config`, a model by name, checkpoints and the rest are TRL's.
    """

    def __init__(
        self,
        model: nn.Module | str,
        args: SFTConfig | None = None,
        *,
        train_dataset: TokenDataset | None = None,
        eval_dataset: TokenDataset | dict[str, TokenDataset] | None = None,
        processing_class: Any = None,
        **others: Any,
    ) -> None:
        """processing_class: by default the tokenizer of the texts. `others` are `objective` and the other arguments of
        SFTTrainer.

        Raises RecipeError for settings that are not used, or that differ from the samples; DataError for other datasets
        and another tokenizer.
        """
        if others.pop("formatting_func", None) is not None:
            raise RecipeError(
                "formatting_func: texts are tokenised by decant.language.tokenise; format them before it"
            )
        if args is not None and not isinstance(args, SFTConfig):
            raise RecipeError(f"args: expected trl.SFTConfig, found {type(args).__name__}")
        if not isinstance(train_dataset, TokenDataset):
            raise DataError(
                f"train_dataset: expected decant.language.TokenDataset, found {type(train_dataset).__name__}"
            )
        settings = copy.copy(args) if args is not None else SFTConfig("sft-distillation")
        sets = [*eval_dataset.values()] if isinstance(eval_dataset, dict) else [eval_dataset]
        for dataset in (train_dataset, *sets):
            if isinstance(dataset, TokenDataset):
                _require_same_tokens(settings, dataset, processing_class)
        settings.dataset_kwargs = {**(settings.dataset_kwargs or {}), "skip_prepare_dataset": True}
        # The samples say what is learnt.
        settings.completion_only_loss = settings.assistant_only_loss = False
        super().__init__(
            model,  # type: ignore[arg-type]
            settings,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class or train_dataset.samples.corpus.tokenizer,
            **others,
        )

    def _shown(self, dataset: Any) -> Any:
        """A first sample as SFTTrainer looks at it; it takes datasets of the library `datasets` alone."""
        if dataset is None:
            return None
        if isinstance(dataset, dict):
            return {name: self._shown(each) for name, each in dataset.items()}
        return Dataset.from_dict({"input_ids": [dataset.samples.tokens(0).tolist()]})


class SFTDistillationTrainer(SFTDistillationMixin, SFTTrainer):
    """TRL's SFTTrainer with `SFTDistillationMixin`."""


def _require_same_tokens(args: SFTConfig, dataset: TokenDataset, tokenizer: Any) -> None:
    """Raises RecipeError where settings would make other tokens or targets than the samples have; DataError for another
    tokenizer.
    """
    samples = dataset.samples
    for name, instead in _IN_THE_DATASET.items():
        if getattr(args, name, None):
            raise RecipeError(
                f"SFTConfig.{name}: batches are of the samples that the teacher read; {instead}"
            )
    if getattr(args, "loss_type", "nll") not in ("nll", None):
        raise RecipeError(
            f"SFTConfig.loss_type: is {args.loss_type!r}, and the loss is the objective; pass objective=…"
        )
    longest = int(samples.lengths.max())
    if args.max_length is not None and longest > args.max_length:
        raise RecipeError(
            f"SFTConfig.max_length: is {args.max_length:,}, and samples have up to {longest:,} tokens, which the "
            f"teacher read; set max_length=None, or cut the samples by TokenSamples(…, max_length={args.max_length})"
        )
    learnt = samples.corpus.identity["options"]["targets"]
    for name in ("completion_only_loss", "assistant_only_loss"):
        if getattr(args, name, None) and learnt != "assistant":
            raise RecipeError(
                f"SFTConfig.{name}: every token of these texts is learnt from; for that tokenise them with "
                'targets="assistant"'
            )
    if args.completion_only_loss is False and learnt == "assistant":
        raise RecipeError(
            "SFTConfig.completion_only_loss: is False, and of these texts completions alone are learnt from; tokenise "
            'them with targets="all", or leave it out'
        )
    if tokenizer is not None and tokenizer_identity(tokenizer) != samples.corpus.identity["tokenizer"]:
        raise DataError(
            "processing_class: is another tokenizer than that of the texts; leave it out, or tokenise the texts with it"
        )
