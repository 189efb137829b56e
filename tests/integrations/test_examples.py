"""Every example is short, and runs; in two processes where it says so."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.commands import decant, succeed
from tests.helpers.extras import needs
from tests.helpers.processes import ROOT
from tests.integrations.launching import TORCHRUN, launch

EXAMPLES = ROOT / "examples"
RUNS: dict[str, list[tuple[Sequence[str], list[str]]]] = {
    "language_model.py": [((sys.executable,), [])],
    "plain_pytorch.py": [((sys.executable,), [])],
    "token_classification.py": [((sys.executable,), [])],
    "with_accelerate.py": [((sys.executable,), []), (TORCHRUN, [])],
    "with_datasets.py": [((sys.executable,), [])],
    "with_lightning.py": [((sys.executable,), []), ((sys.executable,), ["2"])],
    "with_timm.py": [((sys.executable,), [])],
    "with_torchrun.py": [(TORCHRUN, [])],
    "with_trainer_images.py": [((sys.executable,), []), (TORCHRUN, [])],
    "with_trainer_texts.py": [((sys.executable,), [])],
    "with_trl.py": [((sys.executable,), [])],
}
NEEDS = {
    "language_model.py": ["transformers"],
    "plain_pytorch.py": ["sklearn"],
    "token_classification.py": ["transformers"],
    "with_torchrun.py": ["sklearn"],
    "with_trainer_images.py": ["sklearn", "transformers", "accelerate"],
    "with_trainer_texts.py": ["transformers", "accelerate"],
    "with_trl.py": ["transformers", "accelerate", "datasets", "trl"],
}
"""Other examples need the library that they are named after, and the digits."""


def test_examples_have_at_most_60_lines_and_each_is_run() -> None:
    found = {path.name: path.read_text("utf-8") for path in EXAMPLES.glob("*.py")}
    assert set(found) == {*RUNS, "digits.py"}
    assert {name: text.count("\n") for name, text in found.items() if text.count("\n") > 60} == {}
    for name in RUNS:
        assert name in (ast.get_docstring(ast.parse(found[name])) or ""), f"{name} says how it is run"


def _cases() -> list[object]:
    cases = []
    for name, runs in RUNS.items():
        libraries = NEEDS.get(name, ["sklearn", name.removesuffix(".py").removeprefix("with_")])
        for launcher, words in runs:
            two = launcher == TORCHRUN or words == ["2"]
            label = f"{name}, two processes" if two else name
            cases.append(pytest.param(name, launcher, words, id=label, marks=needs(*libraries)))
    return cases


@pytest.mark.parametrize(("name", "launcher", "words"), _cases())
def test_an_example_runs(name: str, launcher: Sequence[str], words: list[str], tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    if NEEDS.get(name) == ["transformers"]:  # which is imported where commands are forked
        done = decant(name, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
        said = succeed(done) + done.stderr
    else:
        said = launch(*launcher, name, *words, cwd=tmp_path)
    assert re.search(r"loss\S* *[\d.]+", said), said
    assert "nan" not in said
    if launcher == TORCHRUN or words == ["2"]:
        assert re.search(r"\b2 processes", said), said
    assert len(list(tmp_path.glob("*.h5"))) == 1
