"""A teacher, or a table of logits, of more classes than the data: the columns of the data's classes are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from decant.cache import LogitCache
from tests.field.conftest import COLOURS, Learnt, draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

COLUMNS = (7, 1, 4)
"""Where the classes of the data are among those of the teacher."""
NAMES = [f"tree {number}" for number in range(10)]
for column, own in zip(COLUMNS, COLOURS, strict=True):
    NAMES[column] = own


def of_ten(learnt: Learnt) -> dict[str, Tensor]:
    """The trained network with a last layer of ten classes, of which three are the data's."""
    state = dict(learnt.state)
    for name in ("11.weight", "11.bias"):
        head = torch.full((10, *state[name].shape[1:]), 3.0)
        head[list(COLUMNS)] = state[name]
        state[name] = head
    return state


def teacher(folder: Path, learnt: Learnt, more: str, content: Any = None) -> Any:
    """`decant teacher` with a file of ten classes."""
    torch.save(of_ten(learnt) if content is None else content, folder / "ten.pth")
    recipe = write_recipe(folder, learnt.images, learnt.network, f'weights = "ten.pth"\n{more}')
    return decant("teacher", "--recipe", recipe, cwd=folder)


def test_the_kept_columns_are_all_that_the_cache_and_the_student_see(learnt: Learnt, tmp_path: Path) -> None:
    assert "100.00" in succeed(teacher(tmp_path, learnt, f"classes = {list(COLUMNS)}"))
    for phase in ("cache-logits", "student", "evaluate"):
        succeed(decant(phase, "--recipe", "mine.toml", cwd=tmp_path))
    cache = LogitCache.open(only(tmp_path, "caches/*.h5"))
    assert cache.num_outputs == 3
    kept = cache.manifest.identity["teacher"]["network"]["args"]["kept_classes"]
    assert kept == {"columns": list(COLUMNS), "of": 10}
    assert (cache.logits(np.arange(36)).argmax(1) == cache.labels).all()
    run = only(tmp_path, "runs/mine/teacher-*")
    succeed(decant("export", run, "--formats", "onnx", cwd=tmp_path))
    onnx = pytest.importorskip("onnx")
    told = {entry.key: entry.value for entry in onnx.load(only(run, "**/*.onnx")).metadata_props}
    assert json.loads(told["classes"]) == list(COLOURS)
    picture = next(learnt.images.glob("val/elm/*.png"))
    assert "elm" in succeed(decant("predict", run, picture, "--top", "1", cwd=tmp_path))


def test_classes_are_kept_by_the_names_that_the_file_knows(learnt: Learnt, tmp_path: Path) -> None:
    content = {"state_dict": of_ten(learnt), "hyper_parameters": {"class_names": NAMES}}
    assert "100.00" in succeed(teacher(tmp_path, learnt, f"classes = {list(COLOURS)}", content))
    swapped = teacher(tmp_path, learnt, 'classes = ["elm", "ash", "oak"]', content)
    assert "keeps elm, ash, oak in this order, and the data's classes are ash, elm, oak" in refused(swapped)


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("[7, 1]", "keeps 2 of 10 columns, and the data have 3 classes: ash, elm, oak"),
        ("[7, 1, 10]", "10 is no column; there are 10, 0 to 9"),
        ("[7, 1, 1]", "teacher.classes: 1 is there twice"),
        ('["ash", "elm", "oak"]', "the names of the 10 outputs are not known; give column numbers"),
        ('[1, "elm", 4]', "teacher.classes: must be column numbers, or names, not both"),
    ],
)
def test_what_cannot_be_kept_is_refused(classes: str, says: str, learnt: Learnt, tmp_path: Path) -> None:
    assert says in refused(teacher(tmp_path, learnt, f"classes = {classes}"))


def test_a_teacher_of_more_classes_is_told_the_setting(learnt: Learnt, tmp_path: Path) -> None:
    assert "it has 10 classes, the data has 3" in (said := refused(teacher(tmp_path, learnt, "epochs = 0")))
    assert "or keep their outputs with teacher.classes" in said


def test_a_function_of_more_outputs_keeps_columns_too(learnt: Learnt, tmp_path: Path) -> None:
    (tmp_path / "ten.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, input_shape):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))\n"
    )
    recipe = write_recipe(tmp_path, learnt.images, '"ten:net"', "epochs = 0")
    assert "teacher.classes keeps those of the data" in refused(
        decant("teacher", "--recipe", recipe, cwd=tmp_path)
    )
    kept = decant("teacher", "--recipe", recipe, "--set", "teacher.classes=[3,4,5]", cwd=tmp_path)
    assert "classes=3 of 10" in succeed(kept)


def test_columns_of_an_imported_table_are_kept(learnt: Learnt, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, learnt.images, '"linear"', "epochs = 1")
    table = np.random.default_rng(0).normal(size=(36, 10)).astype(np.float32)
    np.save(tmp_path / "ten.npy", table)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    whole = ("cache", "import", "ten.npy", "--teacher", "ten", "--recipe", recipe)
    said = refused(decant(*whole, cwd=tmp_path))
    assert "logits: 10 columns, and the data have 3 outputs; keep those of the data with --classes" in said
    assert "--classes: keeps 2 of 10 columns" in refused(decant(*whole, "--classes", "7,1", cwd=tmp_path))
    assert "known" in refused(decant(*whole, "--classes", "ash,elm,oak", cwd=tmp_path))
    for words in (("--classes", "7,1,4"), ("--class-names", "names.txt")):
        made = succeed(decant(*whole, *words, cwd=tmp_path))
    cache = LogitCache.open(only(tmp_path, "caches/*.h5"))
    np.testing.assert_allclose(cache.logits(np.arange(36)), table[:, COLUMNS], rtol=1e-3)
    assert cache.manifest.identity["teacher"]["classes"] == list(COLUMNS)
    succeed(decant("student", "--recipe", recipe, "--set", f"cache.from={cache.path}", cwd=tmp_path)), made


def test_a_pretrained_network_keeps_classes_by_the_names_of_its_library(tmp_path: Path) -> None:
    kept = tmp_path / "torch/hub/checkpoints"
    kept.mkdir(parents=True)
    entry = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    torch.save(torchvision.models.squeezenet1_1().state_dict(), kept / entry.url.rpartition("/")[2])
    images, home = draw(tmp_path / "images", train=2, test=2), str(tmp_path / "torch")
    network = '{ name = "torchvision:squeezenet1_1", weights = "IMAGENET1K_V1" }'
    recipe = write_recipe(tmp_path, images, network, 'classes = ["goldfish", "Tench", "great white shrak"]')
    assert "no output is called 'great white shrak'; did you mean great white shark" in refused(
        decant("teacher", "--recipe", recipe, cwd=tmp_path, TORCH_HOME=home)
    )
    write_recipe(tmp_path, images, network, 'classes = ["goldfish", "Tench", "great white shark"]')
    succeed(decant("teacher", "--recipe", recipe, cwd=tmp_path, TORCH_HOME=home))
    result = json.loads(only(tmp_path, "runs/**/result.json").read_text())
    assert result["network"]["args"]["kept_classes"] == {"columns": [1, 0, 2], "of": 1000}
