"""Distillation with Lightning: python with_lightning.py, or with two processes: python with_lightning.py 2"""

import sys
from functools import partial

import torch
from digits import EPOCHS, Digits, jitter, network, trained_teacher
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import decant
from decant.integrations.lightning import DistillationDataModule, DistillationModule

devices = int(sys.argv[1]) if len(sys.argv) > 1 else 1
views = decant.Views(Digits("train"), jitter, count=EPOCHS, seed=0)
cache = decant.cache_logits(trained_teacher(), views, "digits.h5")

module = DistillationModule(
    network(32),
    objective=decant.objectives.KD(alpha=0.9, temperature=4.0),
    optimizer=partial(torch.optim.AdamW, lr=3e-3),
)
data = DistillationDataModule(decant.SoftLabelDataset(views, cache), Digits("test"), batch_size=64 // devices)
trainer = Trainer(
    max_epochs=EPOCHS,
    accelerator="cpu",
    devices=devices,
    strategy="ddp" if devices > 1 else "auto",
    callbacks=[ModelCheckpoint("checkpoints", save_last=True)],
    enable_progress_bar=False,
    logger=False,
)
trainer.fit(module, datamodule=data)
if trainer.is_global_zero:
    print({name: round(float(value), 3) for name, value in trainer.callback_metrics.items()})
