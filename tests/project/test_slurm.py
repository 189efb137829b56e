"""The batch files of examples/slurm are shell scripts, and what they run takes the options that they give."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import click
import pytest

from decant.pipeline.cli.main import decant
from tests.helpers.processes import ROOT

FILES = sorted((ROOT / "examples/slurm").glob("*.sbatch"))
VALUES = {
    "$SLURM_ARRAY_TASK_ID": "3",
    "$SLURM_NNODES": "4",
    "$SLURM_JOB_ID": "1",
    "$first": "node1",
    "$1": "NAME",
}


def commands(path: Path) -> list[list[str]]:
    """The words of each line that `srun` starts, with values for its variables."""
    text = path.read_text("utf-8").replace("\\\n", " ")
    for name, value in VALUES.items():
        text = text.replace(name, value)
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("srun ")]


def of_decant(words: list[str]) -> list[str]:
    """The words after `decant` or `torchrun … -m decant`."""
    return words[words.index("decant") + 1 :]


def test_every_phase_has_a_file() -> None:
    started = {of_decant(words)[0] for path in FILES for words in commands(path)}
    assert started == {"teacher", "cache-logits", "student", "report", "cache"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_batch_file_is_a_script(path: Path) -> None:
    checked = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == "#!/bin/bash"
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(line.startswith("#") for line in lines[:last]), (
        "SLURM reads no #SBATCH after the first command"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_batch_file_runs_parses(path: Path) -> None:
    for words in commands(path):
        if words[0] == "torchrun":
            from torch.distributed.run import get_args_parser

            given = get_args_parser().parse_args(words[1:])
            assert (given.module, given.training_script) == (True, "decant")
        command: click.Command = decant
        rest = of_decant(words)
        while isinstance(command, click.Group):
            command = command.commands[rest.pop(0)]
        context = command.make_context(command.name, rest, resilient_parsing=False)
        assert context.params
