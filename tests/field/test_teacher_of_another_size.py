"""A teacher that takes larger images than the data have; its student takes them as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.field.conftest import draw, write_recipe
from tests.helpers.commands import decant, only, succeed

FIXED = """
from torch import nn
def fixed(num_classes, input_shape):
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(4 * 9, num_classes))
"""


@pytest.mark.parametrize("more", ["", ', interpolation = "bicubic"'])
def test_a_teacher_is_given_resized_images_and_so_is_what_is_exported(more: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(FIXED)
    images = draw(tmp_path / "images", train=6, test=6)
    network = f'{{ name = "nets:fixed", size = 24{more} }}'
    recipe = write_recipe(tmp_path, images, network, "epochs = 3\nbatch_size = 6\nlr = 0.02")
    for phase in ("teacher", "cache-logits", "student", "evaluate"):
        said = succeed(decant(phase, "--recipe", recipe, cwd=tmp_path))
    assert "nets:fixed size=24" in said
    run = only(tmp_path, "runs/mine/teacher-*")
    spec = json.loads((run / "result.json").read_text())["network"]
    assert (spec["input_shape"], spec["args"]["size"]) == ([3, 8, 8], 24)
    succeed(decant("export", run, "--formats", "pt2,onnx", cwd=tmp_path))
    other = decant(
        "teacher", "--recipe", recipe, "--set", "teacher.network.interpolation=nearest", cwd=tmp_path
    )
    assert "made " in succeed(other), "another resize is another teacher"
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(only(run, "**/*.onnx")))
    (logits,) = session.run(None, {session.get_inputs()[0].name: np.zeros((2, 3, 8, 8), np.uint8)})
    assert logits.shape == (2, 3)
