"""Distillation in two processes of plain PyTorch: torchrun --nproc-per-node=2 with_torchrun.py"""

import torch
import torch.distributed as dist
from digits import EPOCHS, Digits, jitter, network, trained_teacher
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import decant

dist.init_process_group("gloo")
torch.manual_seed(0)
views = decant.Views(Digits("train"), jitter, count=EPOCHS, seed=0)
cache = decant.cache_logits(trained_teacher(), views, "digits.h5")  # the processes share the teacher's pass
train = decant.SoftLabelDataset(views, cache)
objective = decant.objectives.KD(alpha=0.9, temperature=4.0)

student = DistributedDataParallel(network(32))
optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
sampler = DistributedSampler(train)
loader = DataLoader(train, batch_size=32, sampler=sampler)
for epoch in range(EPOCHS):
    sampler.set_epoch(epoch)  # another order
    train.set_epoch(epoch)  # another view
    for images, labels, teacher_logits in loader:
        loss = objective(student(images), teacher_logits, labels).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if dist.get_rank() == 0:
        print(f"epoch {epoch}, {dist.get_world_size()} processes: loss {loss:.3f}")
dist.destroy_process_group()
