"""Random recipes and broken modules: a command ends well, or with one message and exit code 1 or 2; no traceback."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.helpers.commands import decant

TINY = (
    *("teacher.network.width=2", "teacher.epochs=1", "student.epochs=1"),
    *("student.network={name='linear'}", "data.name='mine:data'", "views.augment=[]", "views.size=8"),
)
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
MODULE = """
import sys
import numpy as np, torch
from torch import nn
class Body(nn.Module):
    def __init__(self, num_classes, shape):
        super().__init__()
        self.last = nn.Linear(int(np.prod(shape)), num_classes)
    def forward(self, x):
        y = self.last(x.flatten(1))
        {forward}
def net(num_classes, input_shape):
    {build}
    return Body(num_classes, input_shape)
class Items:
    classes = ["a", "b"]
    def __len__(self): {length}
    def __getitem__(self, index):
        if index >= 12: raise IndexError(index)
        {item}
        return np.random.default_rng(index).integers(0, 255, (1, 8, 8), dtype=np.uint8), index % 2
def data(root, split): return Items()
def loss(student_logits, teacher_logits, labels):
    {loss}
    return (student_logits - teacher_logits).square().mean()
def change(image):
    {change}
    return image
{top}
"""
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
USUAL = {"forward": "return y", "length": "return 12", "top": ""}
settings = st.lists(
    st.sampled_from(sorted(SETTINGS)).flatmap(
        lambda key: st.tuples(st.just(key), st.sampled_from(SETTINGS[key]))
    ),
    max_size=3,
)
module = st.lists(
    st.sampled_from(sorted(PLACES)).flatmap(
        lambda key: st.tuples(st.just(key), st.sampled_from(PLACES[key]))
    ),
    max_size=1,
)


def check(given: list[tuple[str, object]], broken: list[tuple[str, str]], commands: tuple[str, ...]) -> None:
    """The commands, one after the other, until one refuses."""
    parts = dict.fromkeys(PLACES, "pass") | USUAL | dict(broken)
    words = [word for one in TINY for word in ("--set", one)]
    words += ["--set", "teacher.network={name='mine:net'}", "--set", "student.objective={name='mine:loss'}"]
    words += ["--set", "views.augment=[{op='transform', name='mine:change'}]"]
    words += [word for key, value in given for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "mine.py").write_text(MODULE.format(**parts))
        for command in commands:
            done = decant(command, *words, cwd=Path(folder))
            said = f"decant {command} {' '.join(words)}\n{broken}\n{done.stdout}\n{done.stderr}"
            assert done.returncode in (0, 1, 2), said
            assert "Traceback" not in done.stderr, said
            assert "unexpected error" not in done.stderr, said
            if done.returncode:
                assert "decant" in done.stderr.lower() or "Error:" in done.stderr, said
                return


@hypothesis.settings(max_examples=12, derandomize=True)
@hypothesis.given(settings, module)
def test_a_random_misuse_is_refused_in_words(
    given: list[tuple[str, object]], broken: list[tuple[str, str]]
) -> None:
    check(given, broken, ("teacher", "cache-logits", "student"))


@pytest.mark.slow
@hypothesis.settings(max_examples=400)
@hypothesis.given(settings, module)
def test_many_random_misuses_are_refused_in_words(
    given: list[tuple[str, object]], broken: list[tuple[str, str]]
) -> None:
    check(given, broken, ("teacher", "cache-logits", "student", "evaluate", "report", "status"))
