"""Whole run folders and stores, changed at random: every command does its work or refuses, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.processes import run_helper

COMMANDS = 120  # 10,000 by hand: python -m tests.helpers.fuzzing FOLDER SEED 10000


def test_changed_folders_are_read_or_refused(tmp_path: Path) -> None:
    """No traceback, no five seconds, no gigabyte, nothing written elsewhere, no module and no program that the folder
    as it was did not need.
    """
    printed = run_helper("fuzzing", tmp_path / "bench", "suite", COMMANDS)
    wrong = [line for line in printed.splitlines() if line.startswith("{")]
    assert not wrong, "\n".join(json.dumps(json.loads(line), indent=1) for line in wrong[:3])
    assert f"# {COMMANDS} commands" in printed
