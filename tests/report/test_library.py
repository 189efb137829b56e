"""The script of the plotting library: the same from the process beside this one, and where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from decant.pipeline.report import library

pytest.importorskip("vl_convert")


def test_the_script_is_the_same_beside_this_process_and_where_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library.script.cache_clear()
    with library.bundled_beside(), monkeypatch.context() as without:
        without.setitem(sys.modules, "vl_convert", None)  # an import raises
        beside = library.script()
    with library.bundled_beside():
        assert not library._begun, "it is known"
    assert "vegaEmbed" in beside
    library.script.cache_clear()
    monkeypatch.setattr(library, "_BUNDLE", "raise SystemExit(1)")
    with library.bundled_beside():
        assert library.script() == beside


def test_a_process_whose_script_nobody_needs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    library.script.cache_clear()
    monkeypatch.setattr(library, "_BUNDLE", "import time; time.sleep(600)")
    begun = list[subprocess.Popen[bytes]]()
    with library.bundled_beside():
        begun += library._begun
    assert begun[0].returncode
    assert not library._begun


def test_no_file_of_the_current_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vl_convert.py").write_text("open('ran', 'w')\njavascript_bundle = str\n")
    monkeypatch.chdir(tmp_path)
    library.script.cache_clear()
    with library.bundled_beside():
        assert "vegaEmbed=" in library.script().replace(" ", "")
    assert not (tmp_path / "ran").exists()
