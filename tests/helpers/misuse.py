"""A recipe and a module as users write them, the places where they may be broken, and what is put there."""

from __future__ import annotations

RECIPE = """
[data]
name = "{name}"
root = "images"
pack = "never"

[teacher]
network = {{ name = "mine:net", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }}
epochs = {epochs}{weights}
batch_size = 4
lr = 0.01

[cache]
dtype = "float32"

[student]
network = "linear"
epochs = 1
"""
MODULE = """
import sys
import numpy as np, torch
from PIL import Image
from torch import nn
class Body(nn.Sequential):
    def forward(self, x):
        y = super().forward(x)
        {forward}
def net(num_classes, input_shape):
    {build}
    size = int(np.prod(input_shape))
    return Body(nn.Flatten(), nn.Linear(size, 4), nn.BatchNorm1d(4), nn.Linear(4, num_classes))
class Items:
    classes = ["a", "b", "c"]
    def __init__(self, split): self.split = split
    def __len__(self): {length}
    def __getitem__(self, index):
        if index >= (12 if self.split == "train" else 6): raise IndexError(index)
        {item}
        pixels = np.random.default_rng([index, self.split == "train"]).integers(0, 255, (3, 8, 8), dtype=np.uint8)
        return {value}, {label}
def data(root, split): return Items(split)
def loss(student_logits, teacher_logits, labels):
    {loss}
    return (student_logits - teacher_logits).square().mean()
def change(image):
    {change}
    return image
{top}
"""
"""`mine.py`: a network, a dataset, an objective and a transform, with a place in each where it may be broken."""
SETTINGS = {
    "teacher.epochs": (1, 0, -1, 1.5, "'two'", "[]"),
    "teacher.lr": (0.01, 0, -1, 1e30, "inf", "nan", "'fast'"),
    "teacher.batch_size": (8, 1, 0, 10**9, "'all'"),
    "teacher.precision": ("'float32'", "'bfloat16'", "'float8'"),
    "teacher.optimizer": ("'sgd'", "'adamw'", "'lion'"),
    "teacher.network": ("{name='linear'}", "{name='mine:net'}", "{name='lineer'}", "'mine:gone'", "3", "{}"),
    "teacher.weights": ("'gone.pth'", "'.'", "'mine.py'"),
    "student.network": ("{name='mine:net'}", "{name='conv', width=0}", "{name='conv', deep=1}"),
    "student.objective.name": ("'kd'", "'mine:loss'", "'mse'", "'kad'"),
    "student.objective.temperature": (4, 0, -1, "'hot'"),
    "student.seeds": (1, 0, -1, 2.5),
    "student.seed": (0, -1, 2**32),
    "views.count": (1, 2, 0, "'all'"),
    "views.size": (8, 0, 1, "'small'", "[8, 8]", "[8]"),
    "views.augment": (
        "[{op='flip'}]",
        "[{op='transform', name='mine:change'}]",
        "[{op='fly'}]",
        "[3]",
        "'flip'",
    ),
    "cache.dtype": ("'float16'", "'float32'", "'int4'"),
    "cache.batch_size": (64, 1, 0),
    "cache.from": ("'gone.h5'", "'mine.py'", "[]"),
    "data.name": ("'mine:data'", "'mine:gone'", "'digits'", "'digitz'", "''", "':'"),
    "data.root": ("'gone'", "'mine.py'", 5),
    "nosuch.key": (1,),
    "": (1,),
}
ODD = (
    *("1 / 0", "raise ValueError('no\\nyes')", "sys.exit(0)", "raise SystemExit", "raise RecursionError"),
    *(
        "raise MemoryError",
        "raise OSError(28, 'No space left on device')",
        "raise StopIteration",
        "return None",
    ),
    *("return 3", "return []", "return {}", "import gone"),
)
PLACES = {
    "forward": (
        *ODD,
        "return y, y",
        "return y[:1]",
        "return y.argmax(1)",
        "return y * float('nan')",
        "return y[0]",
    ),
    "build": ODD,
    "length": (*ODD, "return -1", "return 0", "return 2.5"),
    "item": (*ODD, "return (3, 4, 5)", "return ('a', 0)", "return (np.zeros((1, index + 1, 8)), 0)"),
    "loss": (*ODD, "return student_logits", "return labels.sum()"),
    "change": (*ODD, "return image[:, 1:]", "return image.float()", "return image[0]"),
    "top": ("x = (", "1 / 0", "sys.exit(0)", "del net, data, loss", "net = data = 3", "import gone"),
}
USUAL = {"forward": "return y", "length": "return 12 if self.split == 'train' else 6", "top": ""}
"""What stands in the places that are not broken and cannot be `pass`."""
