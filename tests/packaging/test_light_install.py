"""The base dependencies alone: caches, and a recipe's phases, work; what needs an extra says so in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.environments import PROJECT, Environment

EXTRAS = PROJECT["optional-dependencies"]
CHAIN = ("teacher", "cache-logits", "student", "evaluate", "status", "report")

RECIPE = """
[data]
name = "imagefolder"
root = "images"

[views]
count = 2
augment = [{ op = "flip" }]

[teacher]
network = { name = "conv", width = 4 }
epochs = 2

[student]
network = { name = "mlp", hidden = 8 }
epochs = 2

[student.objective]
name = "kd"
"""

RUN_ALL = """
import contextlib, io, json, sys
from decant.pipeline.cli.main import main

ended = []
for words in json.loads(sys.argv[1]):
    sys.argv, out, err = ["decant", *words], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            ended.append([exit.code or 0, out.getvalue(), err.getvalue()])
print(json.dumps(ended))
"""
"""Runs many command lines in one process, which imports torch once: prints [exit code, stdout, stderr] of each."""


Ended = tuple[int, str, str]
"""Exit code, stdout and stderr."""


def commands(environment: Environment, folder: Path, *lines: tuple[str, ...]) -> list[Ended]:
    done = environment.run("-c", RUN_ALL, json.dumps(lines), cwd=folder)
    return [tuple(ended) for ended in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def chain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the image folder that it names."""
    folder = tmp_path_factory.mktemp("chain")
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for label in ("one", "two"):
            (folder / "images" / part / label).mkdir(parents=True)
            for place in range(4):
                pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / "images" / part / label / f"{place}.png")
    (folder / "small.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def chain(installed: Environment, chain_folder: Path) -> dict[str, Ended]:
    """How the commands of the recipe ended, by their names."""
    ended = commands(installed, chain_folder, *((command, "--recipe", "small.toml") for command in CHAIN))
    return dict(zip(CHAIN, ended, strict=True))


def test_the_base_dependencies_bring_no_extra(installed: Environment) -> None:
    there = {path.name.partition("-")[0] for path in installed.site.iterdir()}
    assert {"torch", "numpy", "h5py"} <= there
    assert not there & {"sklearn", "scipy", "altair", "vl_convert", "timm", "transformers", "onnx", "pytest"}


@pytest.mark.parametrize("command", CHAIN)
def test_a_recipe_runs_without_any_extra(chain: dict[str, Ended], command: str) -> None:
    code, out, err = chain[command]
    assert code == 0, out + err


def test_a_report_without_its_extra_is_the_table_and_names_the_extra(
    chain: dict[str, Ended],
) -> None:
    _, out, _ = chain["report"]
    assert "learnt from" in out
    lines = out.splitlines()
    assert (
        lines.count(
            "not made: report.html and curves.png: altair is not installed; run: pip install 'decant-kd[report]'"
        )
        == 1
    ), out
    assert lines[-1] == "made runs/small/report.md"


SMALL = ("--recipe", "small.toml")
NEEDING = {
    "demo": (("teacher",), ("teacher", "--recipe", "regression")),
    "mixup": (
        ("teacher", *SMALL, "--set", 'views.augment=[{op="mixup"}]'),
        ("teacher", *SMALL, "--set", 'views.augment=[{op="cutmix"}]'),
    ),
    "timm": (("teacher", *SMALL, "--set", "teacher.network=timm:resnet18"),),
    "text": (("teacher", "--recipe", "text", "--set", "data.root=texts"),),
    "tensorboard": (("report", *SMALL, "--tensorboard"), ("teacher", *SMALL, "--log-to", "tensorboard")),
    "datasets": (("teacher", *SMALL, "--set", "data.name=hf"),),
    "parquet": (("teacher", *SMALL, "--set", "data.name=parquet"),),
    "wandb": (("student", *SMALL, "--log-to", "wandb"),),
    "mlflow": (("student", *SMALL, "--log-to", "mlflow"),),
    "export": (("export", "RUN", "--formats", "onnx"),),
    "sweep": (("sweep", *SMALL, "--set", "data.validation=0.5", "--over", "student.lr=0.1,0.2"),),
    "s3": (("cache", "ls", "--store", "s3://bucket/caches"),),
    "gcs": (("cache", "ls", "--store", "gs://bucket/caches"),),
    "http": (("cache", "ls", "--store", "https://localhost/caches"),),
    "hub": (("cache", "ls", "--store", "hf://datasets/someone/caches"),),
    "report": (("report", *SMALL),),
}
"""Command lines that need an extra, in the folder of the chain; RUN is its student's."""


def test_every_extra_is_tried() -> None:
    assert NEEDING.keys() == EXTRAS.keys() - {"dev", "docs", "integrations"}


@pytest.fixture(scope="module")
def ended(
    installed: Environment, chain_folder: Path, chain: dict[str, Ended]
) -> dict[tuple[str, ...], Ended]:
    """How the command lines of NEEDING ended."""
    (chain_folder / "texts").mkdir()
    for part in ("train", "test"):
        (chain_folder / "texts" / f"{part}.csv").write_text("text,label\none,0\ntwo,1\n")
    student = next(chain_folder.glob("runs/small/student-mlp-kd-*/*/weights.safetensors"))
    lines = [line for several in NEEDING.values() for line in several]
    named = [tuple(str(student.parent) if word == "RUN" else word for word in line) for line in lines]
    return dict(zip(lines, commands(installed, chain_folder, *named), strict=True))


@pytest.mark.parametrize("extra", [name for name in NEEDING if name != "report"])
def test_what_needs_an_extra_names_it_in_one_line(extra: str, ended: dict[tuple[str, ...], Ended]) -> None:
    for line in NEEDING[extra]:
        code, out, err = ended[line]
        assert code == 1, (line, out, err)
        [message] = err.splitlines()
        assert message.startswith("decant: "), line
        assert message.endswith(f"is not installed; run: pip install 'decant-kd[{extra}]'"), line
