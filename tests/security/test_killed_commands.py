"""Commands that are killed leave nothing, and the same command again ends as one that was never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import PATIENCE, ROOT

KILLS = {"teacher": 4, "student": 2, "chosen": 2, "pack": 3, "report": 1, "export": 1}
"""More by hand: docs/security.md."""


def test_killed_commands_are_gone_on_with_and_leave_nothing(tmp_path: Path) -> None:
    chosen = [f"{kind}={kills}" for kind, kills in KILLS.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.killing_commands", *chosen, str(tmp_path), "7"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line.split(" commands")[0].rpartition(", ")[0] for line in done.stdout.splitlines()]
    assert said == [f"{kind}: {kills} kills" for kind, kills in KILLS.items()]
