"""Distillation in Lightning: the data of a cache, the student with its objective, and the epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from decant.cache import warn
from decant.pipeline.integrations.batches import (
    Objective,
    is_of,
    known_labels,
    logits_of,
    loss_of_labels,
    right_answers,
    split_batch,
    terms_of,
)
from decant.pipeline.integrations.epochs import set_epoch
from decant.pipeline.integrations.mixed_labels import Unmixed
from decant.pipeline.objectives import kd, regression


class SetEpoch(Callback):
    """Sets the epoch of a dataset before each epoch, also when a training is resumed: for a data module or a loader of
    your own. `DistillationDataModule` does that itself.

    Lightning sets the epoch of samplers, and not of datasets; without it every epoch would read view 0.

        Trainer(callbacks=[SetEpoch(train)])
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # A resumed loader starts before on_train_epoch_start, which the first, unfinished epoch does not have at all.
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        set_epoch(self.dataset, progress["processed"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        set_epoch(self.dataset, trainer.current_epoch)


class DistillationDataModule(LightningDataModule):
    """The loaders of a training from a cache, for one process or several.

    The order of an epoch is drawn from `seed` and the epoch, and is shared by all processes, each of which takes its
    part; where samples and processes do not come out even, the first samples of the order are taken twice. A training
    that is resumed from a checkpoint in the middle of an epoch goes on with the next batch of that epoch's order and
    views.
    """

    def __init__(
        self,
        train: Dataset[Any],
        validation: Dataset[Any] | None = None,
        *,
        batch_size: int,
        num_workers: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        sampler: Sampler[Any] | None = None,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
    ) -> None:
        """train: a `SoftLabelDataset`, or a Subset or concatenation of such. validation: a dataset of (input, label) or
        of what `collate_fn` takes. batch_size: of each process. sampler: in place of the shuffled order, as a
        WeightedRandomSampler; it is resumed at the start of an epoch. collate_fn: may not mix samples, which the
        views do.
        """
        super().__init__()
        self.train_set, self.validation_set = train, validation
        self.shuffle, self.seed, self.sampler = shuffle, seed, sampler
        self._loading: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "persistent_workers": num_workers > 0,
            "collate_fn": None if collate_fn is None else Unmixed(collate_fn),
            "pin_memory": pin_memory,
        }
        self.drop_last = drop_last

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError(
                "the data module has no trainer yet: pass it to Trainer.fit(module, datamodule=…)"
            )
        sampler: Sampler[Any]
        if self.sampler is not None:
            sampler = _WithEpoch(self.sampler, self.train_set)
        else:
            sampler = _EpochOrder(
                self.train_set,
                num_replicas=trainer.world_size,
                rank=trainer.global_rank,
                shuffle=self.shuffle,
                seed=self.seed,
            )
        # That is more than 0 where it is resumed.
        sampler.set_epoch(trainer.fit_loop.epoch_progress.current.processed)
        loader = _ResumableLoader(self.train_set, sampler=sampler, drop_last=self.drop_last, **self._loading)
        loader.trainer = trainer
        return loader

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        return [] if self.validation_set is None else DataLoader(self.validation_set, **self._loading)


class _EpochOrder(DistributedSampler[Any]):
    """The order of an epoch, which is also the dataset's epoch; the first `skipped` indices are left out, once."""

    dataset: Dataset[Any]
    skipped = 0

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        set_epoch(self.dataset, epoch)

    def __iter__(self) -> Iterator[Any]:
        order, self.skipped = islice(super().__iter__(), self.skipped, None), 0
        return order


class _WithEpoch(Sampler[Any]):
    """A sampler of the user's, whose epoch is also the dataset's."""

    def __init__(self, sampler: Sampler[Any], dataset: Dataset[Any]) -> None:
        self.sampler, self.dataset = sampler, dataset

    def set_epoch(self, epoch: int) -> None:
        set_epoch(self.dataset, epoch)
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


class _ResumableLoader(DataLoader[Any]):
    """Counts the batches of an epoch for Lightning's checkpoints, and goes on after as many.

    Its workers start at the first batch and not with `iter`, so that they see the epoch that is set in between.
    """

    _delivered = 0
    trainer: Trainer | None = None
    """Whose epoch may end before the last batch, as with `limit_train_batches`."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        size = self.batch_size or 1
        self._delivered = getattr(self.sampler, "skipped", 0) // size
        for batch in super().__iter__():
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        length = len(self) if self.trainer is None else min(len(self), int(self.trainer.num_training_batches))
        return {"batches": self._delivered % max(1, length)}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        if isinstance(self.sampler, _EpochOrder):
            self.sampler.skipped = state["batches"] * (self.batch_size or 1)


class DistillationModule(LightningModule):
    """A student that learns from (input, label, teacher_logits) of a `SoftLabelDataset`.

    Logs `train_loss`, `train_hard` (the term of the labels) and `train_soft` (that of the teacher), and over the
    labels of the validation set that are known `val_loss` and `val_accuracy`: the cross-entropy, of an objective of
    sigmoids the binary one and the share of right entries, of a regression the mean squared error alone. Of a
    validation set without any such label neither is logged, which `CacheWarning` says once.

    >>> from functools import partial
    >>> from decant.objectives import KD
    >>> student = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    >>> module = DistillationModule(student, KD(temperature=2.0), partial(torch.optim.SGD, lr=0.1))
    >>> module(torch.zeros(5, 3, 2, 2)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        student: nn.Module,
        objective: Objective = kd,
        optimizer: Callable[[Iterator[nn.Parameter]], Optimizer] = torch.optim.AdamW,
        lr_scheduler: Callable[[Optimizer], Any] | None = None,
        *,
        keys: tuple[str, str] = ("image", "label"),
    ) -> None:
        """student: gives logits (B, C), or an output that has `logits`. objective: one of `decant.objectives`, as
        `decant.objectives.KD(temperature=2.0)`. optimizer and lr_scheduler: what makes
        them, as `functools.partial(torch.optim.SGD, lr=0.1)`; the scheduler steps once an epoch. keys: of input and
        label in batches that are dictionaries.
        """
        super().__init__()
        self.student, self.objective, self.keys = student, objective, keys
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self._measured = torch.zeros(4)  # batches, labels that are known, their loss, right answers

    def forward(self, inputs: Any) -> Tensor:
        """The student's logits (B, C)."""
        named = isinstance(inputs, Mapping)
        return logits_of(self.student(**inputs) if named else self.student(inputs))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, labels, teacher_logits = split_batch(batch, self.keys)
        terms = terms_of(self.objective, self(inputs), teacher_logits, labels)
        names = {"train_loss": terms.total, "train_hard": terms.hard, "train_soft": terms.soft}
        found = {name: value.detach() for name, value in names.items() if value is not None}
        self.log_dict(found, prog_bar=True, batch_size=len(teacher_logits))
        return terms.total

    def on_validation_epoch_start(self) -> None:
        self._measured = torch.zeros(4, device=self.device)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = (batch[key] for key in self.keys) if isinstance(batch, Mapping) else batch[:2]
        logits = self(inputs)
        known = known_labels(self.objective, labels).sum()
        right = right_answers(self.objective, logits, labels)
        loss = loss_of_labels(self.objective, logits, labels) * known
        found = (torch.ones(()), known, loss, torch.zeros(()) if right is None else right.sum())
        self._measured += torch.stack([value.detach().to(self._measured) for value in found])

    def on_validation_epoch_end(self) -> None:
        """Logs the means over the labels that are known, of all processes; nothing where none is."""
        batches, known, loss, right = self.trainer.strategy.reduce(self._measured, reduce_op="sum")
        if known:
            found = {"val_loss": loss / known}
            if not is_of(self.objective, regression):
                found["val_accuracy"] = right / known
            self.log_dict(found, prog_bar=True)
        elif batches and not self.trainer.sanity_checking:
            warn(
                "validation: no sample has a label that is known, so val_loss and val_accuracy are not logged; monitor "
                "train_loss, or give a validation set with labels"
            )

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.student.parameters())
        if self._lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._lr_scheduler(optimizer)}
