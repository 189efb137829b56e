"""What every Trainer here has, of transformers or made of one: an objective for a loss, and its terms in the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from decant.pipeline.errors import RecipeError
from decant.pipeline.integrations.epochs import set_epoch
from decant.pipeline.integrations.resumed_weights import load_by_other_names, not_loaded

_AnyTrainer: Any = object  # a Trainer of transformers, or what others make of it, is the next parent


class ObjectiveMixin(_AnyTrainer):
    """Before a Trainer among the parents of a class, makes its loss an objective, a mean over the rows that count:
    accumulating gradients over several batches gives the loss and the gradient of one batch of all their rows.
    """

    # For versions that have it: the loss is a mean over one batch, and is to be divided by the number of batches.
    loss_is_scaled_for_ga = False

    def __init__(self, model: nn.Module, args: TrainingArguments | None, **others: Any) -> None:
        """Raises RecipeError for arguments that change the loss beside the objective."""
        if others.get("compute_loss_func") is not None:
            raise RecipeError("compute_loss_func: the loss is the objective; pass objective=…")
        if args is not None and args.label_smoothing_factor:
            raise RecipeError("label_smoothing_factor: is not used; pass objective=… with a label_smoothing")
        super().__init__(model, args, **others)
        # The same for older versions: no count of items is passed on to the model, or divides the loss.
        self.model_accepts_loss_kwargs = False
        self._update_size = self._update_batches = 0
        self._logged: list[Tensor] = []
        self.add_callback(_SetEpoch(self))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, *others: Any, **named: Any) -> None:
        self._weights_from = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, *others, **named)

    def _load_best_model(self) -> None:
        self._weights_from = str(self.state.best_model_checkpoint)
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Loads the rest of a checkpoint, where transformers would only say that names are missing."""
        if lacking := not_loaded(self.model, load_result.missing_keys):
            load_by_other_names(self.model, self._weights_from, lacking)
        else:
            super()._issue_warnings_after_load(load_result)

    def rows_of(self, batch: Mapping[str, Any]) -> int:
        """How many rows of a batch count."""
        raise NotImplementedError

    def get_batch_samples(self, epoch_iterator: Iterator[Any], *others: Any) -> Any:
        """The batches of one update, whose rows are counted."""
        found = super().get_batch_samples(epoch_iterator, *others)
        self._update_size = sum(map(self.rows_of, found[0]))
        self._update_batches = len(found[0])
        return found

    def share(self, rows: int) -> float:
        """What the mean over so many rows is multiplied by, so that means of batches add up to that of an update."""
        return rows * self._update_batches / max(1, self._update_size)

    def remember(self, hard: Tensor | None, soft: Tensor | None, rows: int) -> None:
        """Keeps both terms, means over so many rows, for the log."""
        nan = torch.tensor(float("nan"))
        both = [nan if term is None else term.detach().float().cpu() for term in (hard, soft)]
        self._logged.append(torch.stack([*both, torch.ones(())]) * rows)

    def log(self, logs: dict[str, float], *others: Any, **named: Any) -> None:
        """Adds the means of both terms over all rows since the last time, of all processes."""
        if "loss" in logs and self._logged:
            sums = torch.stack(self._logged).sum(dim=0, keepdim=True).to(self.args.device)
            hard, soft, rows = self.accelerator.gather(sums).sum(dim=0).tolist()
            self._logged.clear()
            logs = {**logs, "hard_loss": hard / max(1, rows), "soft_loss": soft / max(1, rows)}
        super().log(logs, *others, **named)


class ObjectiveTrainer(ObjectiveMixin, Trainer):
    """A Trainer of transformers whose loss is an objective."""


class _SetEpoch(TrainerCallback):
    """Sets the epoch of the training set: Accelerate does so for some samplers, and for none of several processes."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        set_epoch(self.trainer.train_dataset, int(state.epoch or 0))
