"""A network that ONNX cannot write is exported in the formats that work, and the others are named with the reason."""

from __future__ import annotations

import json
from pathlib import Path

from tests.field.conftest import draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

NETWORK = """
from torch import nn
def net(num_classes, input_shape):
    return nn.Sequential(nn.AdaptiveMaxPool2d((3, 2)), nn.Flatten(), nn.Linear(18, num_classes))
"""


def test_formats_that_work_are_made_and_the_others_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    images = draw(tmp_path / "images", train=2, test=2)
    recipe = write_recipe(tmp_path, images, '"mine:net"', "epochs = 1")
    succeed(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    run = only(tmp_path, "runs/mine/teacher-*/result.json").parent
    done = decant("export", str(run), cwd=tmp_path)
    said = refused(done)
    assert "onnx cannot be made: torch.onnx cannot write this network (" in said
    assert "adaptive_max_pool2d" in said
    assert "int8 cannot be made: it is made from the ONNX file" in said
    assert f"made {run}/export/student.pt2" in done.stdout
    assert list(json.loads((run / "export/export.json").read_text())["formats"]) == ["pt2"]
    said = refused(decant("export", str(run), "--formats", "onnx", cwd=tmp_path))
    assert len(said.splitlines()) == 1
    assert "onnx cannot be made" in said
