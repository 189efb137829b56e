"""`decant export` and `decant predict` as commands: what they print, and how they fail."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from decant.pipeline.cli.main import decant
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.deploy import export
from decant.pipeline.deploy.check import Checked
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.json_files import read_json
from tests.helpers.shells import typed
from tests.helpers.small import CPU, teach

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="the extra `export` is not installed"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return teach(tmp_path_factory.mktemp("deploy")).folder


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(decant, list(map(str, words)))


@pytest.mark.parametrize("command", ["export", "predict"])
def test_every_option_has_help(command: str) -> None:
    options = [option for option in decant.commands[command].params if isinstance(option, click.Option)]
    assert len(options) >= 2
    assert all(option.help for option in options)
    assert "RUN" in invoke(command, "--help").output


@needs_onnx
def test_export_prints_what_its_summary_holds(run: Path) -> None:
    done = invoke("export", run, "--max-loss", "100")
    assert done.exit_code == 0, done.output
    said = read_json(run / "export/export.json")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    for name, entry in said["formats"].items():
        assert f"{entry['bytes']:,}" in lines[name]
        assert f"{100 * entry['value']:.2f} %" in lines[name]
        assert f"{entry['latency_ms']:.3f}" in lines[name]
        assert (run / "export" / entry["file"]).stat().st_size == entry["bytes"]
    assert "on 360 test samples; milliseconds at batch 1 on 1 thread" in done.stdout
    assert str(run / "export/student.int8.onnx") in lines["made"]


def _files(run: Path) -> list[Path]:
    return [run / "export" / name for name in ("student.pt2", "student.onnx", "student.int8.onnx")]


@needs_onnx
def test_export_tells_a_program_what_it_made_and_found(run: Path) -> None:
    done = invoke("export", run, "--max-loss", "100", "--json")
    told, said = json.loads(done.stdout), read_json(run / "export/export.json")
    assert [row["name"] for row in told["rows"]] == ["network", "pt2", "onnx", "int8"]
    for row in told["rows"][1:]:
        assert {name: said["formats"][row["name"]][name] for name in row} == row
    assert told["files"] == [str(path) for path in (*_files(run), run / "export/export.json")]
    assert (told["problems"], told["left_out"]) == ([], None)
    assert done.stderr.startswith("made ")


def test_an_exported_network_can_be_asked_as_the_last_line_says(run: Path, tmp_path: Path) -> None:
    *_, last = invoke("export", run, "--formats", "pt2").stdout.splitlines()
    assert last == f"next: decant predict {run} IMAGE"
    Image.new("L", (8, 8), 90).save(tmp_path / "IMAGE", "PNG")
    assert typed(last.removeprefix("next: "), tmp_path).startswith("IMAGE: ")


def test_an_exported_regression_is_not_asked_about_images(tmp_path: Path) -> None:
    regression = make_teacher(Plan.of(load_recipe("regression", ["teacher.epochs=1"]), tmp_path), CPU)[
        0
    ].folder
    done = invoke("export", regression, "--formats", "pt2")
    assert done.exit_code == 0, done.output
    assert "next:" not in done.stdout


def test_a_difference_over_its_bound_fails_the_command(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checked, "difference_problem", lambda row: f"{row.name}: too far")
    done = invoke("export", run, "--formats", "pt2")
    assert done.exit_code == 1
    assert done.stderr == f"decant: {run}: pt2: too far\ndecant: nothing was published\n"
    assert "largest difference" in done.stdout, "the table is there to look at"
    assert "next:" not in done.stdout
    told = json.loads(invoke("export", run, "--formats", "pt2", "--json").stdout)
    assert (told["files"], told["problems"]) == ([], ["pt2: too far"])


def test_a_format_that_is_left_out_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_possible", lambda formats: (("pt2",), "onnx is left out: because"))
    done = invoke("export", run)
    assert done.exit_code == 0
    assert "onnx is left out: because" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["export"],
        ["export", "RUN", "--formats", "pt2,tflite"],
        ["export", "RUN", "--max-loss", "-1"],
        ["export", "RUN", "--calibration", "0"],
        ["predict", "RUN"],
        ["predict", "RUN", "IMAGE", "--top", "0"],
    ],
)
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert "Usage:" in done.stderr


def test_predict_prints_a_line_a_file_and_fails_at_the_end(run: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    files = [tmp_path / "bad.png", tmp_path / "grey.png"]
    done = invoke("predict", run, *files, "--top", "2")
    assert done.exit_code == 1
    assert f"decant: {tmp_path / 'bad.png'}: not a readable image" in done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{tmp_path / 'grey.png'}: ")
    as_json = invoke("predict", run, *files, "--top", "2", "--json")
    bad, grey = json.loads(as_json.stdout)
    assert as_json.exit_code == 1
    assert "not a readable image" in bad["problem"]
    said = [f"{one['class']} {100 * one['probability']:.2f} %" for one in grey["classes"]]
    assert line.endswith(": " + ", ".join(said))
    assert len(said) == 2
    assert invoke("predict", run, files[1]).exit_code == 0
