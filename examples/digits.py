"""What you have before you distil, on scikit-learn's digits: a dataset, a random transform, a teacher and a student."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

EPOCHS = 4


class Digits(torch.utils.data.Dataset):
    """Images (1, 8, 8) from 0 to 1 and their labels; every fifth is for testing."""

    classes = tuple("0123456789")

    def __init__(self, split: str) -> None:
        found = load_digits()
        chosen = (torch.arange(len(found.target)) % 5 == 0) == (split == "test")
        self.images = torch.tensor(found.images, dtype=torch.float32)[chosen][:, None] / 16
        self.labels = torch.tensor(found.target)[chosen].tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], self.labels[index]


def jitter(image: torch.Tensor) -> torch.Tensor:
    """Shifts an image by a pixel at most, and makes it a little brighter or darker."""
    dx, dy = torch.randint(-1, 2, (2,)).tolist()
    return image.roll((dy, dx), (1, 2)) * (0.8 + 0.4 * torch.rand(()))


def network(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def trained_teacher(path: str = "teacher.pt") -> nn.Module:
    """A large network, from a file if it is there; yours comes from wherever you have it."""
    teacher = network(512)
    if not Path(path).exists():
        data = Digits("train")
        optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-3)
        for _ in range(EPOCHS * 10):
            for rows in torch.randperm(len(data)).split(128):
                labels = torch.tensor(data.labels)[rows]
                loss = nn.functional.cross_entropy(teacher(data.images[rows]), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        torch.save(teacher.state_dict(), path)
    teacher.load_state_dict(torch.load(path, weights_only=True))
    return teacher.eval()
