"""Distillation from a dataset of Hugging Face, whole and filtered: python with_datasets.py"""

import datasets
import torch
from digits import EPOCHS, Digits, jitter, network, trained_teacher
from torch.utils.data import DataLoader, Subset

import decant
from decant.integrations.datasets import kept_rows

digits = Digits("train")
data = datasets.Dataset.from_dict({"image": digits.images.numpy(), "label": digits.labels}).with_format(
    "torch"
)
views = decant.Views(data, {"image": jitter}, count=EPOCHS, seed=0)
cache = decant.cache_logits(trained_teacher(), views, "digits.h5")

# The cache is of all samples; a filtered dataset is followed to the rows that it keeps.
odd = data.filter(lambda sample: sample["label"] % 2 == 1)
part = Subset(views, kept_rows(odd, of=len(data)))

for samples in (views, part):
    train = decant.SoftLabelDataset(samples, cache)
    student = network(32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    objective = decant.objectives.KD(alpha=0.9, temperature=4.0)
    for epoch in range(EPOCHS):
        train.set_epoch(epoch)
        for batch in DataLoader(train, batch_size=64, shuffle=True):
            loss = objective(student(batch["image"]), batch["teacher_logits"], batch["label"]).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"{len(train):,} samples: loss {loss:.3f}")
