"""The study of `make study`, small, through its real command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.helpers.commands import decant
from tests.helpers.processes import ROOT

SMALL = {
    "teacher.epochs": 4,
    "teacher.network.width": 8,
    "student.epochs": 1,
    "student.seeds": 2,
    "student.network.width": 4,
}


def study(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    words = (*settings, "--views", "1", "all", "--patience", "2", "--out", folder, *words)
    return decant(ROOT / "benchmarks/study/__main__.py", *words, cwd=ROOT)


def test_every_way_is_taught_with_every_seed_and_schedule_and_found_again(tmp_path: Path) -> None:
    done = study(tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "study-digits.json").read_text())
    ways = ["labels only", "fixed logits, augmented inputs", "V = 1", "V = all", "live teacher"]
    assert [run["arm"] for run in made["runs"]] == 4 * ways
    assert [run["epochs"] for run in made["runs"]] == 2 * (5 * [1] + 5 * [2])
    assert {run["views"] for run in made["runs"]} == {None, 1, 9}
    for name in ways:
        assert f"| {name} |" in done.stdout
    assert (tmp_path / "study-digits.png").read_bytes().startswith(b"\x89PNG")
    by_way = {(run["arm"], run["schedule"], run["seed"]): run for run in made["runs"]}
    for schedule in ("short", "long"):  # the same pixels, logits rounded: not far apart even after training
        cached, live = by_way["V = all", schedule, 0], by_way["live teacher", schedule, 0]
        assert abs(cached["top1"] - live["top1"]) < 0.05
    again = study(tmp_path)
    assert json.loads((tmp_path / "study-digits.json").read_text())["runs"] == made["runs"], again.stderr
    same = study(tmp_path, "--views", "9", "--patience", "1")  # short and long are the same runs
    assert same.returncode == 0, same.stderr
    assert "| V = 9 | " in same.stdout
    assert "1 epochs | against live, 1 epochs | agreement" in same.stdout
