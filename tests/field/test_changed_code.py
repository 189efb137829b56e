"""A person edits a network, dataset or transform of their own between two commands: it is another network."""

from __future__ import annotations

import json
import py_compile
from pathlib import Path

import pytest

from tests.field.conftest import draw
from tests.helpers.commands import decant, only, refused, succeed

RECIPE = """
[data]
name = "imagefolder"
root = "images"
pack = "never"

[teacher]
network = "mine:net"
epochs = 2
batch_size = 12

[student]
network = "mine:net"
epochs = 1
baseline = false
"""
CODE = """
from torch import nn
from parts.layers import Sign

WIDTH = 4

def net(num_classes, input_shape):
    layers = [nn.Conv2d(3, WIDTH, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, num_classes), Sign()]
    return nn.Sequential(*layers)

def other():
    return 1
"""
SIGN = """
from torch import nn
class Sign(nn.Module):
    def forward(self, x):
        return 1 * x
"""


class Project:
    """A folder with a person's recipe and code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        draw(folder / "images", train=4, test=4)
        (folder / "mine.toml").write_text(RECIPE)
        (folder / "parts").mkdir()
        (folder / "parts/__init__.py").touch()
        self.code, self.sign = folder / "mine.py", folder / "parts/layers.py"
        self.code.write_text(CODE)
        self.sign.write_text(SIGN)

    def run(self, *words: str) -> str:
        return succeed(decant(*words, "--recipe", "mine.toml", cwd=self.folder))

    def refuses(self, *words: str) -> str:
        return refused(decant(*words, "--recipe", "mine.toml", cwd=self.folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with teacher, cache and student; each test puts its code back."""
    project = Project(tmp_path_factory.mktemp("project"))
    for phase in ("teacher", "cache-logits", "student"):
        assert "made " in project.run(phase)
    return project


@pytest.fixture
def project(made: Project) -> Project:
    made.code.write_text(CODE)
    made.sign.write_text(SIGN)
    return made


def test_what_changes_no_meaning_is_found(project: Project) -> None:
    project.code.write_text(CODE.replace("return 1\n", "return 2\n") + "\n\n# a remark\n")
    (project.folder / "unrelated.py").write_text("print(1)")
    for phase in ("teacher", "cache-logits", "student"):
        assert "found " in project.run(phase)
    assert "warning" not in decant("evaluate", "--recipe", "mine.toml", cwd=project.folder).stderr


@pytest.mark.parametrize("part", ["class in another module", "constant", "function"])
def test_an_edited_network_is_another(part: str, project: Project) -> None:
    if part == "class in another module":
        project.sign.write_text(SIGN.replace("1 * x", "-1 * x"))
    elif part == "constant":
        project.code.write_text(CODE.replace("WIDTH = 4", "WIDTH = 5"))
    else:
        project.code.write_text(CODE.replace("nn.Flatten()", "nn.ReLU(), nn.Flatten()"))
    for phase in ("cache-logits", "student"):
        said = project.refuses(phase)
        assert "(the code of 'mine:net' has changed since another was trained); run: decant teacher" in said
        assert len(said.splitlines()) == 1


def test_old_weights_do_not_run_in_new_code(project: Project) -> None:
    student = only(project.folder, "runs/mine/student-*/seed-0/result.json")
    assert len(json.loads(student.read_text())["network_code"]) == 64
    project.sign.write_text(SIGN.replace("1 * x", "-1 * x"))
    for words in (("export", str(student.parent)), ("predict", str(student.parent), "images/val/ash/00.png")):
        said = refused(decant(*words, cwd=project.folder))
        assert "the code of its network 'mine:net' has changed since it was trained" in said
    said = project.refuses("evaluate")
    assert said.count("left out: the code of its network 'mine:net' has changed") == 2
    assert "no finished network of these data" in said


def test_an_edited_transform_is_another_question(project: Project) -> None:
    transform = "def brighter(image): return image.clamp(max=200)\n"
    views = ("--set", 'views.augment=[{op="transform",name="mine:brighter"}]')
    project.code.write_text(CODE + transform)
    project.run("teacher", *views)
    assert "found " in project.run("teacher", *views)
    project.code.write_text(CODE + transform.replace("200", "201"))
    assert "has not been trained with these settings" in project.refuses("cache-logits", *views)


def test_code_without_a_source_is_said_once(tmp_path: Path) -> None:
    project = Project(tmp_path)
    py_compile.compile(str(project.code), str(tmp_path / "mine.pyc"), doraise=True)
    project.code.unlink()
    done = decant("teacher", "--recipe", "mine.toml", cwd=tmp_path)
    assert "made " in succeed(done)
    assert done.stderr.count("warning: mine:net: its source cannot be read") == 1
