"""The README is true: its lines run, its recipe is one, its tree is the tree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from decant.cache import LogitCache, Store
from decant.cache.convert import import_logits
from decant.pipeline.config.recipe import load
from tests.deploy.test_export import EXAMPLE
from tests.helpers.processes import ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_a_training_loop_of_another_project_takes_ten_lines_that_run(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(600, 10)).astype(np.float32)
    path = import_logits(
        Store(tmp_path), logits, np.arange(600) % 10, teacher={"name": "a"}, data={"name": "b"}
    )
    code, *_ = blocks("python")
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 10
    code = re.sub(r'"caches/.*?\.h5"', repr(str(path)), code).replace(
        "    ...", "    seen.append(teacher_logits)"
    )
    dataset = [(torch.zeros(3), index % 10) for index in range(600)]
    seen: list[torch.Tensor] = []
    exec(code, {"your_map_style_dataset": dataset, "seen": seen})
    assert sum(len(batch) for batch in seen) == 600
    assert seen[0].dtype == torch.float32


def test_a_cache_is_written_by_the_lines_that_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, code, *_ = blocks("python")
    inputs = np.random.default_rng(0).normal(size=(1000, 10)).astype(np.float32)
    order = np.random.default_rng(1).permutation(1000)
    batches = [(rows, inputs[rows], rows % 10) for rows in np.array_split(order, 7)]
    exec(code, {"batches": batches, "teacher": lambda given: given})
    cache = LogitCache.open("mine.h5", verify="open")
    assert np.array_equal(cache.logits(slice(None)), inputs.astype(np.float16))
    assert np.array_equal(cache.labels, np.arange(1000) % 10)


def test_the_lines_that_classify_an_image_are_those_that_are_tested() -> None:
    assert EXAMPLE in README


def test_the_recipe_that_is_shown_is_one(tmp_path: Path) -> None:
    (code,) = blocks("toml")
    (tmp_path / "shown.toml").write_text(code, encoding="utf-8")
    assert load(str(tmp_path / "shown.toml")).settings.views.count == 12
