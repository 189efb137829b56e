"""Trainings of a watched student in two processes: `python -m tests.integrations.two_ranks FRAMEWORK FOLDER`, by the
framework's own launcher where it has one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.integrations import watched


def lightning(folder: Path) -> None:
    from tests.integrations.test_lightning import parts, trainer

    module, data = parts(folder)
    trainer(folder, watched.VIEWS, devices=2, strategy="ddp").fit(module, datamodule=data)


def transformers(folder: Path) -> None:
    from tests.integrations.test_transformers import trainer

    trainer(folder, watched.VIEWS, per_device_train_batch_size=4).train()


def pytorch(folder: Path) -> None:
    import torch
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DataLoader, DistributedSampler

    torch.distributed.init_process_group("gloo")
    train, student = watched.training_set(folder), watched.Watched(folder)
    network, sampler = DistributedDataParallel(student), DistributedSampler(train)
    for epoch in range(watched.VIEWS):
        sampler.set_epoch(epoch)
        train.set_epoch(epoch)
        for images, labels, teacher_logits in DataLoader(train, batch_size=4, sampler=sampler):
            student.objective(network(images), teacher_logits, labels).total.backward()
    torch.distributed.destroy_process_group()


def accelerate(folder: Path, seedable: bool = False, resumed_at: int = 0) -> None:
    from accelerate import Accelerator, DataLoaderConfiguration
    from accelerate.utils import set_seed
    from torch.utils.data import DataLoader

    set_seed(0)  # a seedable sampler has another order in each process without
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=seedable)
    )
    train, student = watched.training_set(folder), watched.Watched(folder)
    network, loader = accelerator.prepare(student, DataLoader(train, batch_size=4, shuffle=True))
    for epoch in range(resumed_at, watched.VIEWS):
        loader.set_epoch(epoch)
        train.set_epoch(epoch)
        for images, labels, teacher_logits in loader:
            accelerator.backward(student.objective(network(images), teacher_logits, labels).total)
    accelerator.end_training()


def accelerate_seedable(folder: Path) -> None:
    accelerate(folder, seedable=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # threads of gloo now and then abort a process in Python's own end, when all is done
