"""Commands that are killed leave nothing, and the same command again ends as one that was never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import PATIENCE, ROOT

KILLS = {"teacher": 6, "student": 6, "pack": 6, "report": 2, "export": 2}
"""More by hand: docs/security.md."""


@pytest.mark.parametrize("kind", KILLS)
def test_a_killed_command_is_gone_on_with_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.helpers.killing_commands",
        kind,
        tmp_path / "killed",
        KILLS[kind],
        7,
    ]
    done = subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{kind}: {KILLS[kind]} kills, "), done.stdout
    assert done.stdout.endswith("all equal\n")
