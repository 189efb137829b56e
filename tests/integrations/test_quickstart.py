"""The notebook runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.helpers.extras import needs
from tests.helpers.processes import PATIENCE, ROOT

NOTEBOOK = ROOT / "docs/quickstart.ipynb"


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.parametrize("needed", [pytest.param(None, marks=needs("nbclient", "ipykernel", "sklearn"))])
def test_it_runs_from_top_to_bottom(needed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=PATIENCE, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    said = "".join(output.get("text", "") for output in outputs)
    assert len(pictures) == 2
    assert "teacher: 9" in said
    assert "is a cache of other views" in said
    assert (tmp_path / "teacher.h5").is_file()
