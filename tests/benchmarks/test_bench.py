"""The measurements of `make bench`, small, through their real commands; no figure is asserted, as machines differ."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import fork_python
from tests.helpers.processes import ROOT

AS_A_PROGRAM = """
import runpy, sys
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
CHEAP = ("2", "3", "10", "12", "14", "20", "24", "31")


def bench(*words: str | Path) -> subprocess.CompletedProcess[str]:
    running = fork_python(AS_A_PROGRAM, *words, cwd=ROOT)
    out, err = running.communicate()
    return subprocess.CompletedProcess(words, running.returncode or 0, out, err)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The JSON of a quick run of the cheap rows, and what it printed."""
    path = tmp_path_factory.mktemp("bench") / "new" / "bench.json"
    done = bench("benchmarks", "--quick", "--only", *CHEAP, "--seed", "7", "--json", path)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text("utf-8")), done.stdout


def test_every_row_has_its_figure_and_says_whether_its_target_is_met(
    measured: tuple[dict[str, Any], str],
) -> None:
    made, _ = measured
    assert [row["row"] for row in made["rows"] if row["row"] < 14] == [2, 3, 3, *[10] * 5, 12]
    for row in made["rows"]:
        assert row["found"] > 0, row
        assert row["details"]["seconds"] > 0, row
        if row["target"] is None:
            assert row["met"] is None, row
        else:
            least = row["unit"] in ("× its rate", "of that", "images/s", "million rows/s")
            expected = row["found"] >= row["target"] if least else row["found"] <= row["target"]
            assert row["met"] is expected, row
        if row["unit"] == "× its rate":
            ratio = row["details"]["against_seconds"] / row["details"]["seconds"]
            assert row["found"] == pytest.approx(ratio)


def test_the_simulation_of_large_caches_has_a_line_for_each_thing_that_is_done() -> None:
    done = bench("benchmarks.simulation", "--small")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 2 * 5
    assert [line.split(" | ")[1] for line in lines[2:4]] == ["resume", "open"]


def test_the_json_says_where_and_how_it_was_measured(measured: tuple[dict[str, Any], str]) -> None:
    made, _ = measured
    assert made["quick"] is True
    assert "--only 2 3 10 12 14 20 24 31 --seed 7" in made["command"]
    assert made["machine"]["cores"] >= 1
    assert set(made["machine"]["versions"]) == {"python", "decant", "torch", "numpy", "h5py"}
    assert "14" in made["left_out"] or made["machine"]["gpu"]


def test_the_table_has_a_line_for_every_row(measured: tuple[dict[str, Any], str]) -> None:
    made, printed = measured
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    assert lines[0] == "| # | what | against | found | target | met |"
    assert len(lines) == 1 + len(made["rows"])
    assert "these figures only show that the measurements work" in printed
    for line, row in zip(lines[1:], made["rows"], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:3] == [str(row["row"]), row["what"], row["against"] or "–"]
        assert cells[5] == {True: "yes", False: "no", None: "–"}[row["met"]]


def test_two_runs_are_compared_row_by_row(measured: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    calls = [
        {"row": 21, "what": f"call {number}", "against": "", "found": 1000, "unit": "instructions"}
        for number in range(2)
    ]
    old = measured[0] | {"quick": False, "rows": measured[0]["rows"] + calls}
    new = copy.deepcopy(old)
    slower, same = new["rows"][-2:]
    slower["found"], same["found"] = 1060, 1040  # counts: a twentieth more is a change of the code
    new["machine"]["cpu"] = "another"
    new["machine"]["versions"]["torch"] = "0.1"
    h5py, files, records, *_, views = [row for row in new["rows"] if row["row"] < 14]
    h5py["found"] *= 0.85  # a rate: less is worse
    files["found"] *= 1.2
    records["found"] *= 1.05
    views["found"] *= 1.2  # milliseconds: more is worse
    gone = next(row for row in new["rows"] if row["row"] == 10)
    new["rows"].remove(gone)
    for name, content in {"old.json": old, "new.json": new}.items():
        (tmp_path / name).write_text(json.dumps(content))
    done = bench("benchmarks.compare", tmp_path / "old.json", tmp_path / "new.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("another machine: cpu: ")
    assert lines[1].startswith("another version: torch: ")
    assert lines[-1] == f"only in old: 10: {gone['what']}, against {gone['against']}"
    changes = {line.split("|")[2].strip() + line.split("|")[3].strip(): line for line in lines if "|" in line}
    for row, ratio, change in (
        (h5py, "0.85", "**worse**"),
        (files, "1.20", "**better**"),
        (records, "1.05", ""),
        (views, "1.20", "**worse**"),
        (slower, "1.06", "**worse**"),
        (same, "1.04", ""),
    ):
        cells = [
            cell.strip() for cell in changes[row["what"] + (row["against"] or "–")].strip("|").split("|")
        ]
        assert cells[5:] == [ratio, change], cells


def test_comparing_what_is_no_run_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    done = bench("benchmarks.compare", tmp_path / "other.json", tmp_path / "other.json")
    assert done.returncode == 2
    assert "other.json: not the JSON of a run of `make bench`" in done.stderr
    assert "Traceback" not in done.stderr
