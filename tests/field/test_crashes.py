"""Whatever a person's own code does, a command ends with one line that names it, and with exit code 1."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from decant.pipeline.cli import main
from decant.pipeline.errors import DataError
from decant.pipeline.training.loading import OrderedKeys, loader
from tests.field.conftest import draw
from tests.helpers.commands import decant, doubts, only, refused, succeed

RECIPE = """
[data]
name = "{data}"
root = "images"
{pack}

[teacher]
network = "{network}"
epochs = {epochs}
batch_size = {batch_size}
lr = {lr}

[student]
network = "linear"
epochs = 1
baseline = false
"""
NETWORK = """
import sys
import torch
from torch import nn

class Body(nn.Module):
    def __init__(self, num_classes, size):
        super().__init__()
        self.last, self.calls = nn.Linear(size, num_classes), 0
    def forward(self, x):
        y = self.last(x.flatten(1))
        self.calls += 1
        {body}

def net(num_classes, input_shape):
    {build}
    return Body(num_classes, input_shape[0] * input_shape[1] * input_shape[2])

def normed(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, num_classes))

def pooled(num_classes, input_shape):
    return nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, num_classes))
"""
DATA = """
import numpy as np
import sys

class Squares:
    classes = ["a", "b"]
    def __init__(self, split):
        self.split = split
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if index >= 8:
            raise IndexError(index)
        if self.split == "train" and index == 5:
            {body}
        return np.full((3, 8, 8), 20 * index, np.uint8), index % 2

def squares(root, split):
    return Squares(split)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures."""
    return draw(tmp_path_factory.mktemp("pictures") / "images", train=4, test=4)


def place(
    folder: Path, images: Path, body: str = "return y", build: str = "pass", **settings: object
) -> Path:
    """A folder with a recipe, and a network that does as `body` says when it is called."""
    (folder / "images").symlink_to(images)
    values = {
        **{"data": "imagefolder", "pack": 'pack = "never"', "network": "mine:net"},
        **{"epochs": 1, "batch_size": 4, "lr": 0.01},
        **settings,
    }
    (folder / "mine.toml").write_text(RECIPE.format(**values))
    (folder / "mine.py").write_text(NETWORK.format(body=body, build=build))
    return folder


def teacher(folder: Path, *words: str) -> str:
    """What `decant teacher` says, which must be one line."""
    said = refused(decant("teacher", "--recipe", "mine.toml", *words, cwd=folder))
    assert len(said.splitlines()) == 1, said
    assert "unexpected error" not in said, said
    return said


IN_TRAINING = "if self.training: "
RAISED = {
    "an error": (IN_TRAINING + 'raise KeyError("lost")', "KeyError: 'lost' [mine.py:13]"),
    "too deep": (IN_TRAINING + "return self(x)", "RecursionError"),
    "no memory": (IN_TRAINING + 'raise MemoryError("72 GiB")', "set teacher.batch_size lower"),
    "torch has no memory": (
        IN_TRAINING + 'raise RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
        "set teacher.batch_size lower",
    ),
    "the end": (IN_TRAINING + "sys.exit(0)", "it ended the program"),
    "a tuple": (
        IN_TRAINING + "return y, y\n        return y",
        "gave a tuple of 2 on a batch of 4 in training",
    ),
    "a dictionary": (IN_TRAINING + 'return {"out": y}\n        return y', "gave a dictionary of out"),
    "nothing": (IN_TRAINING + "return None\n        return y", "gave NoneType"),
    "another batch": (IN_TRAINING + "return y[:3]\n        return y", "gave float32 (3, 3)"),
    "other classes": (IN_TRAINING + "return y[:, :2]\n        return y", "of shape (4, 3) for a batch of 4"),
    "integers": (IN_TRAINING + "return y.argmax(1)\n        return y", "gave int64 (4,)"),
    "no gradient": (IN_TRAINING + "return y.detach()\n        return y", "failed in a step"),
    "NaN": (
        IN_TRAINING + "return y * float('nan')\n        return y",
        "epoch 1: loss is nan, the training has diverged",
    ),
    "an error in evaluation": (
        'if not self.training and self.calls > 3: raise OSError("gone")\n        return y',
        "in evaluation (OSError: gone [mine.py:13])",
    ),
}


@pytest.mark.parametrize("what", RAISED)
def test_a_network_of_ones_own_that_fails_is_named(what: str, images: Path, tmp_path: Path) -> None:
    body, expected = RAISED[what]
    said = teacher(place(tmp_path, images, body if "\n" in body else f"{body}\n        return y"))
    assert expected in said
    if "diverged" not in said:
        assert "network 'mine:net'" in said
    assert not list(tmp_path.glob("runs/**/result.json"))


@pytest.mark.parametrize("raised", ["1 / 0", "sys.exit(0)", "raise RecursionError"])
def test_a_network_that_cannot_be_built_is_named(raised: str, images: Path, tmp_path: Path) -> None:
    said = teacher(place(tmp_path, images, build=raised))
    assert "network 'mine:net': failed when it was called" in said


def test_a_module_that_ends_the_program_is_named(images: Path, tmp_path: Path) -> None:
    place(tmp_path, images)
    with (tmp_path / "mine.py").open("a") as file:
        file.write("\nsys.exit(0)\n")
    assert "cannot be imported (SystemExit: it ended the program" in teacher(tmp_path)


def test_the_traceback_is_shown_where_it_is_asked_for(images: Path, tmp_path: Path) -> None:
    place(tmp_path, images, RAISED["an error"][0] + "\n        return y")
    words = ("teacher", "--recipe", "mine.toml")
    for done in (
        decant(*words, "--debug", cwd=tmp_path),
        decant("--debug", *words, cwd=tmp_path),
        decant(*words, cwd=tmp_path, DECANT_DEBUG="1"),
    ):
        assert done.returncode == 1
        assert "Traceback (most recent call last)" in done.stderr
        assert 'KeyError("lost")' in done.stderr
        assert done.stderr.splitlines()[-1].startswith("decant: network 'mine:net': ")


@pytest.mark.parametrize("raised", ["1 / 0", "sys.exit(0)", "raise MemoryError", "raise StopIteration"])
def test_a_dataset_that_fails_at_a_sample_names_it(raised: str, images: Path, tmp_path: Path) -> None:
    place(tmp_path, images, data="data:squares", pack="", network="linear")
    (tmp_path / "data.py").write_text(DATA.format(body=raised))
    assert "data:squares: train: sample 5" in teacher(tmp_path)


# Batches of one


def test_a_batch_of_one_is_refused_before_the_first_step(images: Path, tmp_path: Path) -> None:
    said = teacher(place(tmp_path, images, network="mine:normed", batch_size=1))
    assert "network 'mine:normed': layer 2 (BatchNorm1d) normalises one value a channel" in said
    assert said.endswith("set teacher.batch_size to 2 or more")


@pytest.mark.parametrize(("network", "batch_size"), [("mine:pooled", 1), ("mine:normed", 2), ("mine:net", 1)])
def test_a_batch_of_one_trains_without_such_a_layer_and_one_of_two_with_it(
    network: str, batch_size: int, images: Path, tmp_path: Path
) -> None:
    place(tmp_path, images, network=network, batch_size=batch_size)
    assert "made " in succeed(decant("teacher", "--recipe", "mine.toml", cwd=tmp_path))


# Trainings that come to nothing


def test_a_training_that_diverges_keeps_its_last_checkpoint(images: Path, tmp_path: Path) -> None:
    body = "return y * (float('nan') if self.training and self.calls > 10 else 1)"
    said = teacher(place(tmp_path, images, body, epochs=6))
    assert "loss is nan, the training has diverged; likely causes: teacher.lr = 0.01 is too high" in said
    assert "the checkpoint after epoch " in said
    only(tmp_path, "runs/mine/teacher-*/checkpoint.pt")


def test_a_learning_rate_that_is_too_high_is_said(images: Path, tmp_path: Path) -> None:
    said = teacher(place(tmp_path, images, lr=1e30, epochs=2))
    assert "has diverged; likely causes: teacher.lr = 1e+30 is too high" in said


def test_outputs_that_never_change_are_warned_of_once(images: Path, tmp_path: Path) -> None:
    done = decant("teacher", "--recipe", "mine.toml", cwd=place(tmp_path, images, "return y * 0"))
    assert "made " in succeed(done)
    assert done.stderr.count("warning: ") == 1
    assert "all outputs are the same for all 12 test samples" in done.stderr


def test_a_network_that_takes_no_batch_of_one_is_finished_without_its_latency(
    images: Path, tmp_path: Path
) -> None:
    body = 'if len(x) == 1: raise ValueError("alone")\n        return y'
    done = decant("teacher", "--recipe", "mine.toml", cwd=place(tmp_path, images, body))
    assert "made " in succeed(done)
    assert "its latency is not known: network 'mine:net': failed on a batch of 1" in done.stderr


# Objectives, and processes that read data


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1 / 0", "failed (ZeroDivisionError: division by zero [losses.py:2])"),
        ("return labels.float().mean()", "its result does not depend on student_logits"),
        ("return student_logits", "must return a tensor of one number"),
    ],
)
def test_an_objective_that_fails_is_named(body: str, expected: str, images: Path, tmp_path: Path) -> None:
    place(tmp_path, images, network="linear")
    (tmp_path / "losses.py").write_text(
        f"def loss(student_logits, teacher_logits, labels):\n    {body}\n    return student_logits.sum()\n"
    )
    words = ("--recipe", "mine.toml", "--set", "student.objective={name='losses:loss'}")
    for phase in ("teacher", "cache-logits"):
        succeed(decant(phase, *words, cwd=tmp_path))
    said = refused(decant("student", *words, cwd=tmp_path))
    assert f"student.objective 'losses:loss': {expected}" in said.splitlines()[-1]


class Dying:
    """A dataset whose second batch kills the process that reads it."""

    def __len__(self) -> int:
        return 4

    def batch(self, keys: np.ndarray) -> tuple[np.ndarray]:
        if keys[0, 0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return (keys,)


def test_a_killed_process_that_reads_data_is_told_in_words() -> None:
    said = r"(process that reads the data|one that said nothing) was killed.*memory ran out.*run the same command again"
    with pytest.raises(DataError, match=said):
        list(loader(Dying(), OrderedKeys(4, 2), workers=1))


# The command itself


def test_an_error_of_ours_is_one_line_with_the_way_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TypeError("no such thing\nat all")

    monkeypatch.setattr(main.decant, "main", fail)
    monkeypatch.setattr("sys.argv", ["decant", "teacher"])
    with pytest.raises(SystemExit, match="1"):
        main.main()
    said = capsys.readouterr().err
    assert said == (
        "decant: unexpected error (TypeError: no such thing): this should not happen; see where with --debug, and "
        "please report it\n"
    )


@pytest.mark.parametrize(
    ("build", "says"),
    [
        ("return nn.Flatten()", None),
        (
            "m = Body(num_classes, 192); m.requires_grad_(False); return m",
            "none of its parameters requires a gradient",
        ),
        ("return Body(num_classes, 192).half()", "its weights must be float32, as its inputs are"),
    ],
)
def test_a_network_that_cannot_be_trained_is_named(
    build: str, says: str | None, images: Path, tmp_path: Path
) -> None:
    if says is None:
        build, says = (
            "return nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(3))",
            "nothing to train: it has no param",
        )
    assert says in teacher(place(tmp_path, images, build=build))


@pytest.mark.parametrize(("last", "says"), [("softmax(1)", "ends in a softmax"), ("sigmoid()", "ends in a sigmoid"),
                                            ("log_softmax(1)", "")])  # fmt: skip
def test_a_network_that_ends_in_what_the_loss_has_is_said(
    last: str, says: str, images: Path, tmp_path: Path
) -> None:
    done = decant("teacher", "--recipe", "mine.toml", cwd=place(tmp_path, images, f"return y.{last}"))
    succeed(done)
    assert says in done.stderr
    assert bool(doubts(done)) == bool(says)


def test_a_teacher_that_is_not_steady_is_said_when_its_logits_are_cached(
    images: Path, tmp_path: Path
) -> None:
    place(tmp_path, images, "return y + 9 * torch.rand_like(y)")
    succeed(decant("teacher", "--recipe", "mine.toml", cwd=tmp_path))
    done = decant("cache-logits", "--recipe", "mine.toml", cwd=tmp_path)
    succeed(done)
    assert "network 'mine:net': its outputs for the same batch are others each time: dropout" in done.stderr
