"""What is printed of the objectives is what a recipe may say of them."""

from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner

from decant.pipeline.cli.main import decant
from decant.pipeline.config.catalogue import catalogue
from decant.pipeline.config.objectives import BUILTIN


def test_the_command_lists_every_objective_with_its_formula_and_defaults() -> None:
    shown = CliRunner().invoke(decant, ["objectives"], catch_exceptions=False, terminal_width=200).output
    for entry in catalogue():
        assert f"\n  {entry.name} " in shown
    assert "alpha 0.9" in shown
    kinds = {kind.__name__ for kind in BUILTIN}
    assert len(kinds) == len({entry.formula for entry in catalogue()}) - 1


def test_a_program_is_told_the_defaults_as_values() -> None:
    done = CliRunner().invoke(decant, ["objectives", "--json"], catch_exceptions=False)
    told = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert told.keys() == {entry.name for entry in catalogue()}
    kd = [("alpha", 0.9), ("temperature", 4.0), ("standardize", False)]
    assert list(told["kd"]["defaults"].items()) == kd, "its own first"
    assert told["package.module:function"]["defaults"] == {}
    assert all(entry["formula"] and entry["use"] and entry["source"] for entry in told.values())


def test_the_list_imports_nothing_heavy() -> None:
    script = (
        "import sys, decant.pipeline.config.catalogue as c; c.catalogue(); "
        "print({'torch', 'numpy', 'h5py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
