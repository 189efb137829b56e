"""A folder of pictures that can be learnt, and a teacher that has learnt them, made once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.commands import decant, only, succeed

COLOURS = {"ash": (190, 60, 60), "elm": (60, 190, 60), "oak": (60, 60, 190)}
RECIPE = """
[data]
name = "imagefolder"
root = {root}
pack = "never"

[teacher]
network = {network}
{teacher}

[student]
network = "linear"
epochs = 1
lr = 0.01
"""


def draw(root: Path, train: int = 12, test: int = 12, side: int = 8) -> Path:
    """An image folder of three classes, each of a colour of its own."""
    random = np.random.default_rng(3)
    for part, count in (("train", train), ("val", test)):
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(colour + random.normal(0, 30, (side, side, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number:02}.png")
    return root


def write_recipe(folder: Path, images: Path, network: str, teacher: str, name: str = "mine.toml") -> str:
    """A recipe whose `[teacher]` has these lines; its name."""
    text = RECIPE.format(root=json.dumps(str(images)), network=network, teacher=teacher)
    (folder / name).write_text(text)
    return name


@dataclass(frozen=True)
class Learnt:
    """A trained teacher."""

    images: Path
    state: dict[str, Tensor]
    """Of its body: what a user would have saved."""
    network: str
    """The network as a recipe writes it, with the mean and standard deviation that it was trained with."""
    weights: Path
    result: dict[str, Any]


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A teacher that is right on every picture."""
    folder = tmp_path_factory.mktemp("learnt")
    images = draw(folder / "images")
    recipe = write_recipe(
        folder, images, '{ name = "conv", width = 4 }', "epochs = 8\nbatch_size = 12\nlr = 0.05"
    )
    succeed(decant("teacher", "--recipe", recipe, cwd=folder))
    run = only(folder, "runs/**/result.json").parent
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["top1"] == 1, result["metrics"]
    spec = result["network"]
    network = f'{{ name = "conv", width = 4, mean = {spec["mean"]}, std = {spec["std"]} }}'
    whole = load_file(run / "weights.safetensors")
    state = {name.removeprefix("body."): whole[name] for name in whole if name.startswith("body.")}
    return Learnt(images, state, network, run / "weights.safetensors", result)
