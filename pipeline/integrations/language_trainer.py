"""Distillation of a causal language model in the Trainer of transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerControl, TrainingArguments

from decant.pipeline.errors import DataError, ModelError, RecipeError
from decant.pipeline.integrations.objective_trainer import ObjectiveMixin
from decant.pipeline.language import TokenBatch, TokenDataset, measure
from decant.pipeline.language.apart import are_behind_others, require_apart, takes
from decant.pipeline.language.causal_model import known_tokens
from decant.pipeline.language.criteria import of_pending
from decant.pipeline.language.doubts import say_if_router_loss_is_left_out
from decant.pipeline.language.without_head import WithoutHead, in_own_precision, probe_of
from decant.pipeline.objectives import SparseTargets, Terms, sparse_kd
from decant.pipeline.support.notices import say_once

TokenObjective = Callable[[Tensor, SparseTargets, Tensor], Terms | Tensor]
"""(student_logits (Q, C), targets, labels (Q,)) → the terms, or the loss alone, as `decant.objectives.SparseKD`."""

SOFT_TOKENS = "soft_tokens"
"""The key of the teacher's rows in a batch."""

_NOT_HERE = {
    "data_collator": "data_collator: belongs to the dataset: TokenDataset(…, collator=…)",
    "compute_metrics": "compute_metrics: is not used: evaluate measures as decant.language.measure does",
    "preprocess_logits_for_metrics": "preprocess_logits_for_metrics: is not used, as compute_metrics",
}
"""Arguments of a Trainer that are refused, in these words."""


class TokenDistillationMixin(ObjectiveMixin):
    """Before a Trainer among the parents of a class, makes its loss an objective of a student's logits and the
    teacher's rows, of `TokenDataset`s.

    The loss of an update is the mean over all its positions that are learnt from, in all batches and processes. Both
    terms are logged beside it, as `hard_loss` and `soft_loss`. `evaluate` measures an evaluation set as
    `decant.language.measure` does: `eval_loss` (the cross-entropy), `eval_perplexity`, `eval_kl`, `eval_accuracy`,
    `eval_agreement`, `eval_calibration_error`.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        *,
        objective: TokenObjective = sparse_kd,
        train_dataset: TokenDataset | None = None,
        eval_dataset: TokenDataset | dict[str, TokenDataset] | None = None,
        **others: Any,
    ) -> None:
        """objective: one of the sparse ones of `decant.objectives`, as `decant.objectives.SparseKD(alpha=0.9)`; for a
        dense cache one of the others. `others` are the other arguments of the Trainer.

        Raises RecipeError for arguments that change the loss beside the objective or would not be used, and for a
        collator: it belongs to the dataset, which compares what it makes. DataError for other datasets, ModelError
        for a student that knows fewer tokens than the teacher.
        """
        for name, said in _NOT_HERE.items():
            if others.get(name) is not None:
                raise RecipeError(said)
        sets = [*eval_dataset.values()] if isinstance(eval_dataset, dict) else [eval_dataset]
        for dataset in (train_dataset, *sets):
            if dataset is not None and not isinstance(dataset, TokenDataset):
                raise DataError(
                    f"train_dataset and eval_dataset: expected decant.language.TokenDataset, found "
                    f"{type(dataset).__name__}"
                )
        super().__init__(
            model,
            args,
            data_collator=_Collate(train_dataset),
            train_dataset=self._shown(train_dataset),
            eval_dataset=self._shown(eval_dataset),
            **others,
        )
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset
        if train_dataset is not None:
            _require_every_token(self.model, train_dataset.cache.num_outputs)
            say_if_router_loss_is_left_out(self.model)
        self.objective = objective
        self._without_head: WithoutHead | None = None
        self._is_apart = False

    def _shown(self, dataset: Any) -> Any:
        """What the Trainer's own `__init__` is given in the place of a dataset, or of several by name."""
        return dataset

    def _get_collator_with_removed_columns(self, data_collator: Any, *_: Any, **__: Any) -> Any:
        """Nothing is removed: the number of a sample is no input of the model, and is used up by the collator."""
        return data_collator

    def rows_of(self, batch: Mapping[str, Any]) -> int:
        """Positions that are learnt from."""
        return len(batch[SOFT_TOKENS].places)

    def share(self, rows: int) -> float:
        """Of all processes, as their gradients are averaged."""
        if self.accelerator.num_processes == 1:
            return super().share(rows)
        size = torch.tensor(self._update_size, device=self.args.device)
        total = int(self.accelerator.gather(size).sum())
        return rows * self._update_batches * self.accelerator.num_processes / max(1, total)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective of a batch, and with `return_outputs` also {"logits": (Q, C)}."""
        inputs = dict(inputs)
        batch: TokenBatch = inputs.pop(SOFT_TOKENS).to(self.args.device)
        if self._takes_use_cache(model):
            inputs["use_cache"] = False  # with one, documents that share a row would see one another
        if "attention_mask" in inputs and not takes(self.accelerator.unwrap_model(model), "position_ids"):
            inputs.pop("position_ids", None)  # it counts by the mask, if at all: that is tried next
        if not self._is_apart and are_behind_others(batch.inputs):
            self._require_apart(model, batch)
        logits: Tensor | None = None
        terms = None if return_outputs else self._of_places(model, inputs, batch)
        if terms is None:
            logits = batch.logits(model(**inputs))
            found = self.objective(logits, batch.targets, batch.labels)  # type: ignore[arg-type]
            terms = Terms(found) if isinstance(found, Tensor) else found
        loss = terms.total
        if self.model.training:
            loss = loss * self.share(len(batch.labels))
            self.remember(terms.hard, terms.soft, len(batch.labels))
        return (loss, {"logits": logits}) if return_outputs else loss

    def _require_apart(self, model: nn.Module, batch: TokenBatch) -> None:
        """Raises ModelError once where what a sample lies behind changes what the student says of it."""
        self._is_apart = True
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return  # whose weights are in no process whole
        network = self.accelerator.unwrap_model(model)
        with in_own_precision(network):
            require_apart(network, batch.inputs)

    def _of_places(self, model: nn.Module, inputs: dict[str, Any], batch: TokenBatch) -> Terms | None:
        """The objective without logits of all places (B, L, C), which are made some at a time; None where that cannot
        be, which is said once.
        """
        loss, why_not = of_pending(self.objective), self._why_whole(model)
        if why_not is None and loss is None:
            why_not = "the objective is a function of your own, which may be no mean over positions"
        if why_not is None and self._without_head is None:
            network = self.accelerator.unwrap_model(model)
            self._without_head = WithoutHead(network, batch.num_outputs, probe_of(batch))
        if why_not is None and self._without_head is not None:
            why_not = self._without_head.why_not
        if why_not is None and loss is not None and self._without_head is not None:
            pending = self._without_head(model, inputs, batch)
            if pending is not None:
                return loss(pending, batch.targets, batch.labels)
            why_not = self._without_head.why_not
        if self.is_world_process_zero():
            name = type(self.accelerator.unwrap_model(model)).__name__
            say_once(f"{name}: logits of all places of a batch are held in each step, as {why_not}")
        return None

    def _why_whole(self, model: nn.Module) -> str | None:
        """Why the weight of a head cannot be used outside a forward pass, or the head not be replaced in one."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return "the weights of its head are spread over processes"
        if self.args.torch_compile or hasattr(model, "_orig_mod"):
            return "it is compiled"
        if isinstance(model, nn.DataParallel):
            return "several GPUs of one process have a copy of its head each"
        if self.args.fp16:
            return "gradients of float16 are scaled before they are rounded"
        return None

    def _takes_use_cache(self, model: nn.Module) -> bool:
        return hasattr(getattr(self.accelerator.unwrap_model(model), "config", None), "use_cache")

    def evaluate(
        self,
        eval_dataset: Dataset[Any] | dict[str, Dataset[Any]] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Measures on one evaluation set, or on each of several by name. Raises DataError where there is none."""
        chosen: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        sets = (
            {f"{metric_key_prefix}_{name}": each for name, each in chosen.items()}
            if isinstance(chosen, dict)
            else {metric_key_prefix: chosen}
        )
        metrics: dict[str, float] = {}
        for prefix, dataset in sets.items():
            metrics |= {f"{prefix}_{name}": value for name, value in self._measured(dataset).items()}
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def predict(self, *_: Any, **__: Any) -> Any:
        """Raises RecipeError: of all places of all samples (N, L, C) logits would be kept."""
        raise RecipeError(
            "predict: would keep the logits of all places; use evaluate(test), or decant.language.measure"
        )

    def _measured(self, dataset: Any) -> dict[str, float]:
        if not isinstance(dataset, TokenDataset):
            raise DataError(
                f"eval_dataset: expected decant.language.TokenDataset, found {type(dataset).__name__}"
            )
        longest = int(dataset.samples.lengths.max())
        found = measure(
            self.accelerator.unwrap_model(self.model),
            dataset.samples,
            dataset.cache,
            tokens_per_batch=self.args.per_device_eval_batch_size * longest,
            device=self.args.device,
            show_progress=False,
        )
        return {
            "loss": math.log(found.perplexity),
            "perplexity": found.perplexity,
            "kl": found.kl,
            "accuracy": found.accuracy,
            "agreement": found.agreement,
            "calibration_error": found.calibration_error,
        }


def _require_every_token(model: nn.Module, tokens: int) -> None:
    """Raises ModelError for a student of transformers that knows fewer tokens than the teacher's rows are of."""
    rows = known_tokens(model)
    if rows is not None and rows < tokens:
        raise ModelError(
            f"{type(model).__name__}: knows {rows:,} tokens, and the teacher's rows are of {tokens:,}; give it a row "
            "for each token of the teacher's tokenizer (resize_token_embeddings)"
        )


class TokenDistillationTrainer(TokenDistillationMixin, Trainer):
    """The Trainer of transformers with `TokenDistillationMixin`."""


class _Collate:
    """Items of a dataset as what a model takes, and the teacher's rows."""

    def __init__(self, dataset: TokenDataset | None) -> None:
        self._dataset = dataset

    def __call__(self, items: list[Any]) -> dict[str, Any]:
        assert self._dataset is not None, "a Trainer without train_dataset trains nothing"
        batch = self._dataset.collate(items)
        return {**batch.inputs, SOFT_TOKENS: batch}
