"""Distillation in the Trainer of transformers, for images and texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
)

from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.integrations.batches import SOFT_LABELS, Objective, logits_of, terms_of
from decant.pipeline.integrations.epochs import set_epoch
from decant.pipeline.objectives import NO_LABEL, kd

Collator = Callable[[list[Any]], Mapping[str, Any]]

_LABELS = ("label", "labels", "label_ids")


class DistillationCollator:
    """Makes batches for a Trainer: what the model takes, `labels`, and `teacher_logits` (B, C) where samples have them.

    Samples are dictionaries, or (input, label) or (input, label, teacher_logits).

    >>> collate = DistillationCollator(input_name="pixel_values")
    >>> batch = collate([(torch.zeros(3, 4, 4), 1, torch.zeros(10)), (torch.zeros(3, 4, 4), 0, torch.zeros(10))])
    >>> {name: tuple(value.shape) for name, value in batch.items()}
    {'pixel_values': (2, 3, 4, 4), 'labels': (2,), 'teacher_logits': (2, 10)}
    """

    def __init__(self, inner: Collator = default_data_collator, input_name: str = "pixel_values") -> None:
        """inner: collates dictionaries without the teacher's logits, as `DataCollatorWithPadding(tokenizer)`.
        input_name: the model's name of an input that is no dictionary.
        """
        self.inner, self.input_name = inner, input_name

    def __call__(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Raises DataError where some samples have the teacher's logits, and others have not."""
        named = [self._named(sample) for sample in samples]
        logits = [sample.pop(SOFT_LABELS) for sample in named if SOFT_LABELS in sample]
        if logits and len(logits) < len(named):
            raise DataError(f"{len(logits):,} of {len(named):,} samples of a batch have teacher_logits")
        batch = dict(self.inner(named))
        if logits:
            batch[SOFT_LABELS] = default_collate(logits)
        return batch

    def _named(self, sample: Any) -> dict[str, Any]:
        if isinstance(sample, Mapping):
            return dict(sample)
        inputs, label, *logits = sample
        named = dict(inputs) if isinstance(inputs, Mapping) else {self.input_name: inputs}
        return {**named, "labels": label, **dict(zip([SOFT_LABELS], logits, strict=False))}


class DistillationTrainer(Trainer):
    """A Trainer whose loss is an objective of student logits, cached teacher logits and labels.

    `train_dataset` is a `SoftLabelDataset`. An evaluation set may be one, or a dataset without the teacher's logits,
    where the loss is the cross-entropy of its labels. Both terms are logged beside the loss, as `hard_loss` and
    `soft_loss`. Accumulating gradients over several batches gives the loss and the gradient of one batch of all their
    samples. The model is called without labels, and needs no loss of its own.
    """

    # For versions that have it: the loss is a mean over one batch, and is to be divided by the number of batches.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments | None = None,
        *,
        objective: Objective = kd,
        data_collator: Collator | None = None,
        processing_class: Any = None,
        **others: Any,
    ) -> None:
        """objective: one of `decant.objectives`, as `decant.objectives.KD(temperature=2.0)`. data_collator: of samples
        that are dictionaries, without the teacher's logits; by default it pads where `processing_class` is a tokenizer.
        `others` are the other arguments of `transformers.Trainer`.

        Raises RecipeError for arguments that change the loss beside the objective.
        """
        if others.get("compute_loss_func") is not None:
            raise RecipeError("compute_loss_func: the loss is the objective; pass objective=…")
        if args is not None and args.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: is not used; pass objective=… with a label_smoothing")
        if data_collator is None:
            padded = isinstance(processing_class, PreTrainedTokenizerBase)
            data_collator = DataCollatorWithPadding(processing_class) if padded else default_data_collator
        if not isinstance(data_collator, DistillationCollator):
            data_collator = DistillationCollator(data_collator, _input_name(model))
        super().__init__(
            model, args, data_collator=data_collator, processing_class=processing_class, **others
        )
        self.objective = objective
        # The same for older versions: no count of items is passed on to the model, or divides the loss.
        self.model_accepts_loss_kwargs = False
        self.label_names: list[str] = getattr(self, "label_names", []) or ["labels"]
        self._update_size = self._update_batches = 0
        self._logged: list[Tensor] = []
        self.add_callback(_SetEpoch(self))

    def _set_signature_columns_if_needed(self) -> None:
        """Keeps the teacher's logits, and all of an input, where columns that the model does not take are removed."""
        super()._set_signature_columns_if_needed()
        if SOFT_LABELS not in self._signature_columns:
            self._signature_columns += [SOFT_LABELS]

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *others: Any) -> Any:
        """The batches of one update, whose samples are counted."""
        found = super().get_batch_samples(epoch_iterator, *others)
        self._update_size = sum(len(batch[SOFT_LABELS]) for batch in found[0] if SOFT_LABELS in batch)
        self._update_batches = len(found[0])
        return found

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The objective of a batch, and with `return_outputs` also {"logits": (B, C)}.

        Raises DataError for a batch to train on that has no teacher logits or no labels.
        """
        inputs = dict(inputs)
        teacher_logits = inputs.pop(SOFT_LABELS, None)
        labels = next((inputs.pop(name) for name in _LABELS if name in inputs), None)
        training = self.model.training
        if labels is None or (training and teacher_logits is None):
            missing = "labels" if labels is None else SOFT_LABELS
            raise DataError(
                f"the batch has {', '.join(inputs)}, and no {missing}: train_dataset must be a "
                "decant.SoftLabelDataset, and no collator may drop what it gives"
            )
        logits = logits_of(model(**inputs))
        if teacher_logits is None:
            loss = functional.cross_entropy(logits.float(), labels, ignore_index=NO_LABEL)
        else:
            terms = terms_of(self.objective, logits, teacher_logits.to(logits.device), labels)
            loss = terms.total
            if training:
                share = len(logits) * self._update_batches / max(1, self._update_size)
                loss = loss * share  # batches of an update need not be of one size
                self._remember(terms.hard, terms.soft)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _remember(self, hard: Tensor | None, soft: Tensor | None) -> None:
        nan = torch.tensor(float("nan"))
        both = [nan if term is None else term.detach().float().cpu() for term in (hard, soft)]
        self._logged.append(torch.stack(both))

    def log(self, logs: dict[str, float], *others: Any, **named: Any) -> None:
        """Adds the means of both terms since the last time, over all processes."""
        if "loss" in logs and self._logged:
            mean = torch.stack(self._logged).mean(dim=0, keepdim=True).to(self.args.device)
            hard, soft = self.accelerator.gather(mean).mean(dim=0).tolist()
            self._logged.clear()
            logs = {**logs, "hard_loss": hard, "soft_loss": soft}
        super().log(logs, *others, **named)


def _input_name(model: nn.Module) -> str:
    """What a model calls its input: `main_input_name` of transformers, or the first argument of `forward`."""
    first = next(iter(inspect.signature(model.forward).parameters), "input")
    return str(getattr(model, "main_input_name", first))


class _SetEpoch(TrainerCallback):
    """Sets the epoch of the training set: Accelerate does so for some samplers, and for none of several processes."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        set_epoch(self.trainer.train_dataset, int(state.epoch or 0))
