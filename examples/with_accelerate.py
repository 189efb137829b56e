"""Distillation with Accelerate: python with_accelerate.py, accelerate launch with_accelerate.py on several GPUs, or two
processes without any: torchrun --nproc-per-node=2 with_accelerate.py
"""

import torch
from accelerate import Accelerator
from digits import EPOCHS, Digits, jitter, network, trained_teacher
from torch.utils.data import DataLoader

import decant

accelerator = Accelerator(cpu=not torch.cuda.is_available())
views = decant.Views(Digits("train"), jitter, count=EPOCHS, seed=0)
with accelerator.main_process_first():
    cache = decant.cache_logits(trained_teacher(), views, "digits.h5")
train = decant.SoftLabelDataset(views, cache)
objective = decant.objectives.KD(alpha=0.9, temperature=4.0)

student = network(32)
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
loader = DataLoader(train, batch_size=32, shuffle=True)
student, optimizer, loader = accelerator.prepare(student, optimizer, loader)
for epoch in range(EPOCHS):
    loader.set_epoch(epoch)  # Accelerate's own count, which is behind where a training was resumed
    train.set_epoch(epoch)
    for images, labels, teacher_logits in loader:
        loss = objective(student(images), teacher_logits, labels).total
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    accelerator.print(f"epoch {epoch}, {accelerator.num_processes} processes: loss {loss:.3f}")
accelerator.end_training()
