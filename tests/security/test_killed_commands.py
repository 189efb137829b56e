"""Commands that are killed leave nothing, and the same command again ends as one that was never killed."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import run_helper

KILLS = {"teacher": 4, "student": 2, "chosen": 2, "pack": 3, "report": 1, "export": 1}
"""More by hand: docs/security.md."""


def test_killed_commands_are_gone_on_with_and_leave_nothing(tmp_path: Path) -> None:
    chosen = [f"{kind}={kills}" for kind, kills in KILLS.items()]
    printed = run_helper("killing_commands", *chosen, tmp_path, 7)
    said = [line.split(" commands")[0].rpartition(", ")[0] for line in printed.splitlines()]
    assert said == [f"{kind}: {kills} kills" for kind, kills in KILLS.items()]
