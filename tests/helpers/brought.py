"""What a person may bring to the command, drawn at random: a folder of images or a function, a file of weights, a
recipe and a module, each of them right, odd or broken.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from tests.helpers.misuse import MODULE, PLACES, RECIPE, SETTINGS, USUAL

SIDE = 8
State = dict[str, Tensor]

# A folder of images


def _colour(path: Path, seed: int, mode: str = "RGB", side: int = SIDE, **options: Any) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    form = "JPEG" if path.suffix.lower() in (".jpg", ".jfif") else "PNG"
    image = Image.fromarray(pixels).convert("RGB" if mode == "CMYK" and form == "PNG" else mode)
    image = image.convert("RGB") if form == "JPEG" and mode in ("P", "RGBA", "LA") else image
    image.save(path, form, **options)


def _sixteen(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65_536, (SIDE, SIDE)).astype(np.uint16)
    Image.fromarray(pixels).save(path, "PNG")


def _animation(path: Path, seed: int) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), (seed % 256, shade, 0)) for shade in (10, 20)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def _link(path: Path, seed: int) -> None:
    _colour(path.with_name(f"{path.name}.target"), seed)
    path.symlink_to(f"{path.name}.target")


RIGHT_CONTENTS: dict[str, Callable[[Path, int], None]] = {
    "colours": _colour,
    "grey": lambda path, seed: _colour(path, seed, "L"),
    "palette": lambda path, seed: _colour(path, seed, "P"),
    "alpha": lambda path, seed: _colour(path, seed, "RGBA"),
    "CMYK": lambda path, seed: _colour(path, seed, "CMYK"),
    "16 bits": _sixteen,
    "an animation": _animation,
}
WRONG_CONTENTS: dict[str, Callable[[Path, int], None]] = {
    "another size": lambda path, seed: _colour(path, seed, side=SIDE + 1),
    "nothing": lambda path, seed: path.touch(),
    "text": lambda path, seed: path.write_text("<!doctype html>"),  # type: ignore[func-returns-value]
    "a pointer": lambda path, seed: path.write_text("version https://git-lfs.github.com/spec/v1\n"),  # type: ignore[func-returns-value]
    "a cut image": lambda path, seed: (_colour(path, seed), os.truncate(path, 60)),  # type: ignore[func-returns-value]
    "a dead link": lambda path, seed: path.symlink_to("gone.png"),
}
CONTENTS = RIGHT_CONTENTS | WRONG_CONTENTS | {"a link": _link}
IMAGES = ("a.png", "b.PNG", "c.jfif", "d.jpg", "e.tar.png", "spa ce.png", "ünï.png", f"{'x' * 200}.png")
OTHERS = (
    "notes.txt",
    "without",
    ".hidden.png",
    "._a.png",
    "Thumbs.db",
    "a.png.target",
    "x.heic",
    "labels.csv",
)
CLASSES = ("cat", "Dog", "9", "10", "Élan", "two words")


@dataclass(frozen=True)
class File:
    """A file below a class folder."""

    folders: tuple[str, ...]
    name: str
    content: str


@dataclass(frozen=True)
class Folder:
    """`images/`: a training part, and a test part under one of its names."""

    train: dict[str, list[File]]
    test: dict[str, list[File]]
    test_name: str
    loose: tuple[str, ...] = ()
    """Beside the class folders."""

    @property
    def is_right(self) -> bool:
        """Whether there is nothing that must be refused."""
        of_all = [file for part in (self.train, self.test) for files in part.values() for file in files]
        images = all(any(file.name in IMAGES for file in files) for files in self.train.values())
        tested = all(any(file.name in IMAGES for file in files) for files in self.test.values())
        usual = all(file.content in RIGHT_CONTENTS for file in of_all if file.name in IMAGES)
        names = self.test_name in ("val", "test", "validation")
        return len(self.train) > 1 and images and tested and usual and names and {*self.train} == {*self.test}

    def write(self, root: Path) -> None:
        """The folder on disk."""
        for part, classes in (("train", self.train), (self.test_name, self.test)):
            (root / part).mkdir(parents=True, exist_ok=True)
            for name, files in classes.items():
                (root / part / name).mkdir(parents=True, exist_ok=True)
                for number, file in enumerate(files):
                    path = root.joinpath(part, name, *file.folders, file.name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        if not path.exists():
                            CONTENTS[file.content](path, number + 100 * len(name) + 1000 * len(part))
        for name in self.loose:
            (root / "train" / name).write_text("1")


def _files(right: bool) -> st.SearchStrategy[list[File]]:
    contents = st.sampled_from([*RIGHT_CONTENTS] if right else [*CONTENTS])
    folders = st.sampled_from([(), (), (), ("sub",), ("sub", "10")])
    image = st.builds(File, folders, st.sampled_from(IMAGES), contents)
    other = st.builds(File, folders, st.sampled_from(OTHERS), st.sampled_from(["text", "colours"]))
    return st.tuples(st.lists(image, min_size=right, max_size=4), st.lists(other, max_size=1)).map(
        lambda lists: [*lists[0], *lists[1]]
    )


@st.composite
def folders(draw: st.DrawFn, right: bool) -> Folder:
    """Folders with nothing that must be refused, or with anything."""
    names = draw(st.lists(st.sampled_from(CLASSES), min_size=2 if right else 0, max_size=3, unique=True))
    train = {name: draw(_files(right)) for name in names}
    others = names if right else draw(st.sampled_from([names, names[1:], [*names, "more"]]))
    test = {name: draw(_files(True)) for name in others}
    test_name = draw(st.sampled_from(["val", "test", "validation"] + ([] if right else ["Test", "eval"])))
    return Folder(train, test, test_name, tuple(draw(st.lists(st.sampled_from(OTHERS), max_size=1))))


# A file of weights


def network(num_classes: int, seed: int = 0) -> nn.Sequential:
    """The body of `mine:net`, drawn."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4), nn.BatchNorm1d(4), nn.Linear(4, num_classes)
    )


def _other_head(state: State) -> State:
    return {**state, "3.weight": torch.ones(7, 4), "3.bias": torch.ones(7)}


def _spoilt(state: State) -> State:
    return {**state, "1.bias": torch.full((4,), float("nan"))}


RIGHT_STATES: dict[str, Callable[[State], Any]] = {
    "as it is": lambda state: state,
    "float64": lambda state: {name: tensor.double() for name, tensor in state.items()},
    "without counters": lambda state: {name: t for name, t in state.items() if "num_batches" not in name},
    "module.": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "_orig_mod.module.": lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    "net.": lambda state: {f"net.{name}": tensor for name, tensor in state.items()},
    "another head": lambda state: {name.replace("3.", "3.out.", 1): tensor for name, tensor in state.items()},
}
WRONG_STATES: dict[str, Callable[[State], Any]] = {
    "a head of 7": _other_head,
    "NaN": _spoilt,
    "a layer less": lambda state: {
        name: tensor for name, tensor in state.items() if not name.startswith("1.")
    },
    "a layer more": lambda state: {**state, "4.weight": torch.ones(3, 3)},
    "without statistics": lambda state: {name: t for name, t in state.items() if "running" not in name},
    "integers": lambda state: {name: tensor.int() for name, tensor in state.items()},
    "other shapes": lambda state: {
        name: tensor[:1] if tensor.ndim else tensor for name, tensor in state.items()
    },
    "a list": lambda state: list(state.values()),
    "nothing": lambda state: {},
}
STATES = RIGHT_STATES | WRONG_STATES
KEYS = ("state_dict", "model", "net", "ema", "a.b")
BESIDE: dict[str, Any] = {
    "epoch": 3,
    "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 192)}}, "param_groups": [{"lr": 0.1}]},
    "best": np.float64(0.5),
    "path": Path("out"),
}


@dataclass(frozen=True)
class Weights:
    """A file with the state of a network, under keys and beside other things."""

    state: str
    keys: tuple[str, ...]
    beside: tuple[str, ...]
    form: str
    """`torch`, `legacy`, `safetensors`, or how it is damaged."""

    @property
    def is_right(self) -> bool:
        """Whether it is to be loaded."""
        return self.state in RIGHT_STATES and self.form in ("torch", "legacy", "safetensors")

    def write(self, path: Path, state: State) -> None:
        """The file."""
        content = STATES[self.state](state)
        if self.form == "safetensors" and isinstance(content, dict) and content:
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
            return
        for key in reversed(self.keys):
            content = {key: content, **{name: BESIDE[name] for name in self.beside}}
        torch.save(content, path, _use_new_zipfile_serialization=self.form != "legacy")
        octets = path.read_bytes()
        if self.form == "cut":
            path.write_bytes(octets[: len(octets) // 2])
        if self.form == "a bit":
            place = len(octets) // 3
            path.write_bytes(octets[:place] + bytes([octets[place] ^ 16]) + octets[place + 1 :])


def weights(right: bool) -> st.SearchStrategy[Weights]:
    """Files that load, or any."""
    return st.builds(
        Weights,
        st.sampled_from([*RIGHT_STATES] if right else [*STATES]),
        st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
        st.lists(st.sampled_from([*BESIDE]), max_size=2, unique=True).map(tuple),
        st.sampled_from(["torch", "legacy", "safetensors"] + ([] if right else ["cut", "a bit"])),
    )


# A function of one's own

RIGHT_LABELS = {
    "integers": "index % 3",
    "numpy": "np.int32(index % 3)",
    "tensors": "torch.tensor(index % 3)",
    "in rows of one": "torch.tensor([index % 3])",
    "names": "'abc'[index % 3]",
    "one-hot": "np.eye(3)[index % 3]",
}
WRONG_LABELS = {
    "names that are not there": "'xyz'[index % 3]",
    "all alike": "1",
    "beyond": "index % 3 + 1",
    "several": "[1, 1, 0]",
    "objects": "object()",
    "huge": "10 ** 30",
    "bytes": "b'a'",
    "of two kinds": "index % 3 if index else 0.5",
}
RIGHT_INPUTS = {
    "uint8": "pixels",
    "tensors": "torch.from_numpy(pixels)",
    "pictures": "Image.fromarray(pixels.transpose(1, 2, 0))",
    "floats": "(pixels / 255).astype('f4')",
    "bfloat16": "torch.from_numpy(pixels / 256).bfloat16()",
    "with gradients": "torch.from_numpy(pixels / 256).requires_grad_()",
}
WRONG_INPUTS = {
    "last": "pixels.transpose(1, 2, 0)",
    "integers": "pixels.astype(int)",
    "NaN": "pixels / 0.0 * 0",
    "none": "None",
    "text": "'a.png'",
    "of two sizes": "pixels[:, : 8 - index % 2]",
    "of two kinds": "pixels / 255 if index % 2 else pixels",
    "numbers": "0.5",
    "random": "np.random.default_rng().integers(0, 255, (3, 8, 8), dtype=np.uint8)",
}


@dataclass(frozen=True)
class Function:
    """`mine:data`: 12 samples to train on and 6 to measure on."""

    label: str
    value: str

    @property
    def is_right(self) -> bool:
        """Whether it must be taken."""
        return self.label in RIGHT_LABELS and self.value in RIGHT_INPUTS


def functions(right: bool) -> st.SearchStrategy[Function]:
    """Functions that must be taken, or any."""
    labels = RIGHT_LABELS if right else RIGHT_LABELS | WRONG_LABELS
    inputs = RIGHT_INPUTS if right else RIGHT_INPUTS | WRONG_INPUTS
    return st.builds(Function, st.sampled_from([*labels]), st.sampled_from([*inputs]))


# All of it

_setting = st.sampled_from(sorted(SETTINGS)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(SETTINGS[key]))
)
_break = st.sampled_from(sorted(PLACES)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(PLACES[key]))
)


@dataclass(frozen=True)
class Brought:
    """Data, weights, overrides of the recipe and breaks of the module."""

    data: Folder | Function
    weights: Weights | None
    epochs: int
    overrides: tuple[tuple[str, object], ...]
    breaks: tuple[tuple[str, str], ...]

    @property
    def is_right(self) -> bool:
        """Whether every command must work."""
        return (
            self.data.is_right
            and (self.weights is None or self.weights.is_right)
            and (self.weights is not None or self.epochs > 0)
            and not self.overrides
            and not self.breaks
        )

    @property
    def num_classes(self) -> int:
        """That the weights are of."""
        return 3 if isinstance(self.data, Function) else max(len(self.data.train), 1)

    def write(self, folder: Path) -> State | None:
        """All files below `folder`; the state dict that was put into the file of weights."""
        function = self.data if isinstance(self.data, Function) else Function("integers", "uint8")
        if isinstance(self.data, Folder):
            self.data.write(folder / "images")
        parts = dict.fromkeys(PLACES, "pass") | USUAL | dict(self.breaks)
        parts |= {"label": {**RIGHT_LABELS, **WRONG_LABELS}[function.label]}
        parts |= {"value": {**RIGHT_INPUTS, **WRONG_INPUTS}[function.value]}
        (folder / "mine.py").write_text(MODULE.format(**parts))
        name = "imagefolder" if isinstance(self.data, Folder) else "mine:data"
        given = '\nweights = "w.bin"' if self.weights else ""
        recipe = RECIPE.format(name=name, epochs=self.epochs, weights=given)
        (folder / "mine.toml").write_text(recipe)
        if self.weights is None:
            return None
        state = dict(network(self.num_classes, seed=5).state_dict())
        self.weights.write(folder / "w.bin", state)
        return state

    @property
    def words(self) -> list[str]:
        """Of the command line."""
        return [
            "--recipe",
            "mine.toml",
            *(word for key, value in self.overrides for word in ("--set", f"{key}={value}")),
        ]

    def __str__(self) -> str:
        return json.dumps(
            {"data": repr(self.data), "weights": repr(self.weights), "epochs": self.epochs}
            | {"overrides": repr(self.overrides), "breaks": repr(self.breaks)},
            indent=1,
        )


@st.composite
def brought(draw: st.DrawFn) -> Brought:
    """Anything a person may bring; a third of it is right, and most of the rest has one thing wrong."""
    wrong = draw(
        st.sampled_from(["nothing", "nothing", "data", "weights", "overrides", "breaks", "anything"])
    )

    def is_right(what: str) -> bool:
        return wrong not in (what, "anything")

    form = folders if draw(st.booleans()) else functions
    data = draw(form(is_right("data")))
    file = draw(st.none() | weights(is_right("weights"))) if is_right("weights") else draw(weights(False))
    epochs = draw(st.sampled_from([0, 1])) if file is not None else 1
    most = {name: 0 if is_right(name) else 2 for name in ("overrides", "breaks")}
    return Brought(
        data,
        file,
        epochs,
        tuple(draw(st.lists(_setting, max_size=most["overrides"], min_size=most["overrides"] // 2))),
        tuple(draw(st.lists(_break, max_size=most["breaks"] // 2, min_size=most["breaks"] // 2))),
    )
