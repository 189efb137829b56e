"""A student of a cache under Lightning: order, views, resumption, two processes, and what is refused."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

import decant
from decant.cache import CacheWarning, MismatchError, SoftLabelDataset
from decant.pipeline.errors import DataError
from tests.helpers.extras import needs
from tests.integrations import watched
from tests.integrations.launching import launch

pytestmark = needs("lightning")

OPTIMIZER = partial(torch.optim.SGD, lr=0.1)


def trainer(folder: Path, epochs: int, **options: Any) -> Any:
    from lightning.pytorch import Trainer

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
    return Trainer(default_root_dir=folder, max_epochs=epochs, **{**quiet, **options})


def parts(folder: Path, **loading: Any) -> tuple[Any, Any]:
    """(module, data module)."""
    from decant.integrations.lightning import DistillationDataModule, DistillationModule

    student = watched.Watched(folder)
    data = DistillationDataModule(watched.training_set(folder), batch_size=8, **loading)
    return DistillationModule(student, student.objective, OPTIMIZER), data


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_every_sample_in_its_view_and_live_logits(tmp_path: Path, workers: int) -> None:
    module, data = parts(tmp_path, num_workers=workers, validation=watched.Pictures(10))
    run = trainer(tmp_path, 2 * watched.VIEWS)
    run.fit(module, datamodule=data)
    watched.assert_whole_epochs(tmp_path, 2 * watched.VIEWS)
    (batches,) = watched.notes(tmp_path)
    assert batches[0] != sorted(batches[0])
    assert {"train_loss", "train_hard", "train_soft", "val_loss", "val_accuracy"} <= set(run.callback_metrics)


def test_two_processes_take_every_sample_once(tmp_path: Path) -> None:
    watched.training_set(tmp_path)
    launch(sys.executable, "-m", "tests.integrations.two_ranks", "lightning", tmp_path, cwd=tmp_path)
    watched.assert_whole_epochs(tmp_path, watched.VIEWS, ranks=2)


class Stop(Exception):
    pass


def stop_after(steps: int) -> Any:
    """A callback that saves a checkpoint after so many batches, and ends the process's training there."""
    from lightning.pytorch import Callback

    class StopAfter(Callback):
        def on_train_batch_end(self, run: Any, *_: Any) -> None:
            if run.global_step == steps:
                run.save_checkpoint(Path(run.default_root_dir) / "stopped.ckpt")
                raise Stop

    return StopAfter()


@pytest.mark.parametrize(
    ("stopped", "workers", "limit"), [(9, 0, 1.0), (9, 2, 1.0), (12, 0, 1.0), (3, 0, 1.0), (8, 0, 4)]
)
def test_resumed_in_an_epoch_it_goes_on_with_the_next_batch(
    tmp_path: Path, stopped: int, workers: int, limit: float
) -> None:
    """Or with the next epoch, where it was stopped after the last batch, of all or of those that Lightning takes."""
    options = {"limit_train_batches": limit}
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    weights = []
    for folder in (whole, parted):
        folder.mkdir()
        torch.manual_seed(0)
        module, data = parts(folder, num_workers=workers)
        if folder == parted:
            with pytest.raises(Stop):
                trainer(folder, 4, callbacks=[stop_after(stopped)], **options).fit(module, datamodule=data)
            module, data = parts(folder, num_workers=workers)
            trainer(folder, 4, **options).fit(module, datamodule=data, ckpt_path=folder / "stopped.ckpt")
        else:
            trainer(folder, 4, **options).fit(module, datamodule=data)
        weights.append(module.student.net[1].weight)
    assert watched.notes(parted) == watched.notes(whole)
    assert torch.equal(*weights)


def test_a_loader_of_ones_own_needs_the_callback_alone(tmp_path: Path) -> None:
    from decant.integrations.lightning import DistillationModule, SetEpoch

    started = []

    class Loader(DataLoader[Any]):
        """Notes in which view it starts, as its workers would."""

        def __iter__(self) -> Any:
            started.append(next(view for view in range(3) if torch.equal(train[0][0], train[0, view][0])))
            return super().__iter__()

    student = watched.Watched(tmp_path)
    module = DistillationModule(student, student.objective, OPTIMIZER)
    for epochs, checkpoint in ((2, None), (4, tmp_path / "two.ckpt")):
        train = watched.training_set(tmp_path)
        run = trainer(tmp_path, epochs, callbacks=[SetEpoch(train)])
        run.fit(module, Loader(train, batch_size=8, shuffle=True), ckpt_path=checkpoint)
        run.save_checkpoint(tmp_path / "two.ckpt")
    watched.assert_whole_epochs(tmp_path, 4)
    assert started == [0, 1, 2, 0]


def test_a_weighted_sampler_draws_rows_of_the_epochs_view(tmp_path: Path) -> None:
    sampler = WeightedRandomSampler([1.0] * watched.SAMPLES, 24)
    module, data = parts(tmp_path, sampler=sampler)
    trainer(tmp_path, watched.VIEWS).fit(module, datamodule=data)
    (batches,) = watched.notes(tmp_path)
    assert len(batches) == 3 * watched.VIEWS
    for epoch, rows in enumerate(watched.epochs([batches], watched.VIEWS)):
        for index in {index for index, _ in rows}:
            drawn = [view for other, view in rows if other == index]
            assert drawn == [(epoch + times) % watched.VIEWS for times in range(len(drawn))]


@pytest.mark.parametrize("what", ["shuffled", "another transform", "grown"])
def test_a_mismatch_stops_the_first_batch(tmp_path: Path, what: str) -> None:
    from decant.integrations.lightning import DistillationDataModule, DistillationModule

    cache = watched.training_set(tmp_path).cache
    student = watched.Watched(tmp_path)
    module = DistillationModule(student, student.objective, OPTIMIZER)

    def train() -> None:
        data = DistillationDataModule(SoftLabelDataset(watched.wrong_data()[what], cache), batch_size=8)
        trainer(tmp_path, 1).fit(module, datamodule=data)

    with pytest.raises(MismatchError):
        train()
    assert not list(tmp_path.glob("rank-*"))


def test_a_batch_without_logits_is_named(tmp_path: Path) -> None:
    from decant.integrations.lightning import DistillationModule

    student = watched.Watched(tmp_path)
    module = DistillationModule(student, student.objective, OPTIMIZER)
    with pytest.raises(DataError, match=r"the batch is 2 values, and must be \(input"):
        trainer(tmp_path, 1).fit(module, DataLoader(watched.Pictures(), batch_size=8))


OBJECTIVES = {
    "classes": (decant.objectives.KD(), torch.tensor([0, 1, 4, -1, 2, 3])),
    "shares": (decant.objectives.kd, torch.eye(5)[[0, 1, 4, 2, 3, 0]]),
    "sigmoids": (decant.objectives.SigmoidKD(), (torch.arange(30).view(6, 5) % 3 == 0).float()),
    "regression": (partial(decant.objectives.regression, weight=0.5), torch.linspace(-2, 2, 30).view(6, 5)),
}


def by_hand(
    what: str, logits: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Loss and accuracy of the labels that are known."""
    if what == "classes":
        known = labels >= 0
        right = (logits.argmax(1) == labels)[known]
        return torch.nn.functional.cross_entropy(logits[known], labels[known]), right
    if what == "shares":
        return torch.nn.functional.cross_entropy(logits, labels), logits.argmax(1) == labels.argmax(1)
    if what == "sigmoids":
        known = ~labels.isnan()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])
        return loss, ((logits > 0) == (labels == 1))[known]
    return (logits - labels).square()[~labels.isnan()].mean(), None


@pytest.mark.parametrize("what", list(OBJECTIVES))
def test_a_validation_set_is_measured_by_what_its_labels_are(tmp_path: Path, what: str) -> None:
    """All had the cross-entropy of classes, which is 0 of one number; who had no label was counted as wrong."""
    from decant.integrations.lightning import DistillationModule

    objective, labels = OBJECTIVES[what]
    if labels.dtype == torch.float32 and what != "shares":
        labels[4:, 1] = torch.nan
    torch.manual_seed(0)
    images = torch.rand(6, 3, 8, 8)
    module = DistillationModule(watched.teacher(), objective, OPTIMIZER)
    data = torch.utils.data.TensorDataset(images, labels)
    (found,) = trainer(tmp_path, 1).validate(module, DataLoader(data, batch_size=4), verbose=False)
    loss, right = by_hand(what, watched.teacher()(images), labels)
    assert found["val_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert found.get("val_accuracy") == (
        None if right is None else pytest.approx(float(right.float().mean()))
    )


def test_a_validation_set_without_labels_is_measured_by_nothing(tmp_path: Path) -> None:
    """Its means were those of no number: NaN, which `ModelCheckpoint` and `EarlyStopping` take as a value."""
    from decant.integrations.lightning import DistillationModule

    images, labels = torch.rand(6, 3, 8, 8), torch.full((6,), -1)
    module = DistillationModule(watched.teacher(), decant.objectives.KD(), OPTIMIZER)
    measure = partial(trainer(tmp_path, 1).validate, module, verbose=False)

    def data() -> DataLoader[Any]:
        return DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=2)

    with pytest.warns(CacheWarning, match="validation: no sample has a label that is known, so val_loss"):
        assert measure(data()) == [{}]
    labels[-1] = 3  # a part with labels is measured by these alone, however many batches have none
    (found,) = measure(data())
    loss, right = by_hand("classes", watched.teacher()(images), labels)
    assert right is not None
    assert found["val_loss"] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert found["val_accuracy"] == float(right.float().mean())


def test_labels_of_any_kind_are_looked_at_by_a_collate_function_of_the_users() -> None:
    from decant.pipeline.integrations.mixed_labels import require_unmixed

    shares = torch.tensor([[0.7, 0.3], [1.0, 0.0]])
    require_unmixed(list(shares.bfloat16()), shares)
    require_unmixed([[torch.zeros(2), torch.zeros(1)]] * 2, shares)
    for ids in ([0, 1], list(torch.tensor([0, 1], dtype=torch.int16))):
        with pytest.raises(DataError, match="has mixed the labels"):
            require_unmixed(ids, shares)


def test_a_collate_function_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    from torchvision.transforms.v2 import MixUp

    mix = MixUp(num_classes=watched.CLASSES)

    def mixed(samples: list[Any]) -> Any:
        return mix(*torch.utils.data.default_collate(samples))

    module, data = parts(tmp_path, collate_fn=mixed)
    with pytest.raises(DataError, match="the collate function has mixed the labels"):
        trainer(tmp_path, 1).fit(module, datamodule=data)
    assert not list(tmp_path.glob("rank-*"))
