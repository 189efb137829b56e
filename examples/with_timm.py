"""Distillation of a timm network with timm's transform and task: python with_timm.py"""

import timm
import torch
from digits import Digits
from timm.data import create_transform
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_pil_image

import decant
from decant.integrations.timm import CachedDistillationTask


class Images(Digits):
    """The digits as images of PIL in colour, which timm's transforms take."""

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return to_pil_image(image.expand(3, 8, 8)).resize((32, 32)), label


torch.manual_seed(0)
data = torch.utils.data.Subset(Images("train"), range(256))
transform = create_transform(32, is_training=True, auto_augment="rand-m5-n2", hflip=0.0, re_prob=0.2)
views = decant.Views(data, transform, count=2, seed=0)

trained = timm.create_model("resnet10t", num_classes=10)  # yours is trained already
optimizer = create_optimizer_v2(trained, opt="adamw", lr=1e-3)
for images, labels in DataLoader(torch.utils.data.ConcatDataset([views] * 4), batch_size=64, shuffle=True):
    torch.nn.functional.cross_entropy(trained(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
torch.save(trained.state_dict(), "teacher.pth")

teacher = timm.create_model("resnet10t", num_classes=10, checkpoint_path="teacher.pth")
cache = decant.cache_logits(teacher, views, "timm.h5", batch_size=64)

train = decant.SoftLabelDataset(views, cache)
loader = DataLoader(train, batch_size=64, shuffle=True)  # and not timm.data.create_loader
student = timm.create_model("test_byobnet.r160_in1k", num_classes=10)
task = CachedDistillationTask(student, decant.objectives.KD(alpha=0.9, temperature=2.0))
optimizer = create_optimizer_v2(student, opt="adamw", lr=1e-3)
for epoch in range(2):
    train.set_epoch(epoch)
    for images, labels, teacher_logits in loader:
        result = task(images, labels, teacher_logits)
        optimizer.zero_grad()
        result["loss"].backward()
        optimizer.step()
    print(
        f"epoch {epoch}: "
        + ", ".join(f"{name} {result[name]:.3f}" for name in ("loss", "task_loss", "kd_loss"))
    )
