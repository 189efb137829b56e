"""Distillation in the Trainer of transformers, for images and texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils.data import default_collate
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    TrainingArguments,
    default_data_collator,
)

from decant.cache import warn
from decant.pipeline.errors import DataError
from decant.pipeline.integrations.batches import (
    SOFT_LABELS,
    Objective,
    known_labels,
    logits_of,
    loss_of_labels,
    terms_of,
)
from decant.pipeline.integrations.mixed_labels import LABELS, labels_in, require_unmixed
from decant.pipeline.integrations.objective_trainer import ObjectiveTrainer
from decant.pipeline.objectives import kd
from decant.pipeline.support.signatures import signature

Collator = Callable[[list[Any]], Mapping[str, Any]]


class DistillationCollator:
    """Makes batches for a Trainer: what the model takes, `labels`, and `teacher_logits` (B, C) where samples have them.

    Samples are dictionaries, or (input, label) or (input, label, teacher_logits).

    >>> import torch
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
        """Raises DataError where some samples have the teacher's logits, and others have not, and where `inner` has
        mixed their labels.
        """
        named = [self._named(sample) for sample in samples]
        logits = [sample.pop(SOFT_LABELS) for sample in named if SOFT_LABELS in sample]
        if logits and len(logits) < len(named):
            raise DataError(f"{len(logits):,} of {len(named):,} samples of a batch have teacher_logits")
        given = [labels_in(sample) for sample in named]
        batch = dict(self.inner(named))
        if logits:
            require_unmixed(given, labels_in(batch))
            batch[SOFT_LABELS] = default_collate(logits)
        return batch

    def _named(self, sample: Any) -> dict[str, Any]:
        if isinstance(sample, Mapping):
            return dict(sample)
        inputs, label, *logits = sample
        named = dict(inputs) if isinstance(inputs, Mapping) else {self.input_name: inputs}
        return {**named, "labels": label, **dict(zip([SOFT_LABELS], logits, strict=False))}


class DistillationTrainer(ObjectiveTrainer):
    """A Trainer whose loss is an objective of student logits, cached teacher logits and labels.

    `train_dataset` is a `SoftLabelDataset`. An evaluation set may be one, or a dataset without the teacher's logits,
    where the loss is that of its labels: the cross-entropy, of an objective of sigmoids the binary one, of a regression
    the mean squared error. Both terms are logged beside the loss, as `hard_loss` and
    `soft_loss`. Accumulating gradients over several batches gives the loss and the gradient of one batch of all their
    samples. The model is called without labels, and needs no loss of its own.
    """

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
        if data_collator is None:
            padded = isinstance(processing_class, PreTrainedTokenizerBase)
            data_collator = DataCollatorWithPadding(processing_class) if padded else default_data_collator
        if not isinstance(data_collator, DistillationCollator):
            data_collator = DistillationCollator(data_collator, _input_name(model))
        super().__init__(
            model, args, data_collator=data_collator, processing_class=processing_class, **others
        )
        self.objective = objective
        self._has_said_it = False
        self.label_names: list[str] = getattr(self, "label_names", []) or ["labels"]

    def _set_signature_columns_if_needed(self) -> None:
        """Keeps the teacher's logits, and all of an input, where columns that the model does not take are removed."""
        super()._set_signature_columns_if_needed()
        if SOFT_LABELS not in self._signature_columns:
            self._signature_columns += [SOFT_LABELS]

    def rows_of(self, batch: Mapping[str, Any]) -> int:
        """Samples with the teacher's logits."""
        return len(batch[SOFT_LABELS]) if SOFT_LABELS in batch else 0

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
        labels = next((inputs.pop(name) for name in LABELS if name in inputs), None)
        training = self.model.training
        if labels is None or (training and teacher_logits is None):
            missing = "labels" if labels is None else SOFT_LABELS
            raise DataError(
                f"the batch has {', '.join(inputs)}, and no {missing}: train_dataset must be a "
                "decant.SoftLabelDataset, and no collator may drop what it gives"
            )
        logits = logits_of(model(**inputs))
        if teacher_logits is None:
            loss = loss_of_labels(self.objective, logits, labels)
            if not known_labels(self.objective, labels).any():
                self._say_that_no_label_is_known()
        else:
            terms = terms_of(self.objective, logits, teacher_logits.to(logits.device), labels)
            loss = terms.total
            if training:
                loss = loss * self.share(len(logits))  # batches of an update need not be of one size
                self.remember(terms.hard, terms.soft, len(logits))
        return (loss, {"logits": logits}) if return_outputs else loss

    def _say_that_no_label_is_known(self) -> None:
        """Once: a Trainer takes the mean of all batches, and has no way to leave one out."""
        if self._has_said_it:
            return
        self._has_said_it = True
        warn(
            "evaluation: no sample of a batch has a label that is known, so its loss is 0, and eval_loss too low: give "
            "an evaluation set with labels, or with the teacher's logits (a decant.SoftLabelDataset)"
        )


def _input_name(model: nn.Module) -> str:
    """What a model calls its input: `main_input_name` of transformers, or the first argument of `forward`."""
    first = next(iter(signature(model.forward).parameters), "input")
    return str(getattr(model, "main_input_name", first))
