"""Distillation in a training loop of plain PyTorch: python plain_pytorch.py"""

import torch
from digits import EPOCHS, Digits, jitter, network, trained_teacher
from torch.utils.data import DataLoader

import decant


def main() -> None:
    views = decant.Views(Digits("train"), jitter, count=EPOCHS, seed=0)
    cache = decant.cache_logits(trained_teacher(), views, "digits.h5")
    train = decant.SoftLabelDataset(views, cache)
    objective = decant.objectives.KD(alpha=0.9, temperature=4.0)

    student = network(32)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    loader = DataLoader(train, batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in range(EPOCHS):
        train.set_epoch(epoch)
        for images, labels, teacher_logits in loader:
            loss, hard, soft = objective(student(images), teacher_logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss:.3f}, of labels {hard:.3f}, of the teacher {soft:.3f}")

    test = Digits("test")
    right = (student(test.images).argmax(dim=1) == torch.tensor(test.labels)).float().mean()
    print(f"accuracy {right:.3f}")


if (
    __name__ == "__main__"
):  # workers that are started anew run this file: always on macOS, since Python 3.14 on Linux
    main()
