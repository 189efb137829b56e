"""Packs, images and weights that change while a command uses them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import forget_what_was_said
from tests.field.conftest import draw
from tests.helpers.commands import decant, only, refused, succeed
from tests.helpers.folders import everything, keep, read, write_folder

RECIPE = """
[data]
name = "imagefolder"
root = "images"
pack = "{pack}"
[teacher]
network = "mine:net"
epochs = {epochs}
batch_size = 12
{teacher}
[student]
network = "linear"
epochs = 1
"""
NETWORK = """
import os
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    calls = 0
    def forward(self, x):
        Net.calls += self.training
        action = os.environ.get("ACTION")
        if action and Net.calls == 5 and self.training:
            path = next(Path("store/packs").glob("imagefolder-train-*.pack"))
            path.chmod(0o644)
            if action == "cut short":
                os.truncate(path, 5_000)
            elif action == "overwritten":
                with path.open("r+b") as file:
                    file.seek(4_096)
                    file.write(bytes(2_000))
            elif action == "used by another":
                os.utime(path)
        return super().forward(x)

def net(num_classes, input_shape):
    if os.environ.get("ACTION") == "other weights":
        os.replace("other.pth", "weights.pth")
    return Net(nn.Flatten(), nn.Linear(192, num_classes))
"""


def place(folder: Path, pack: str = "always", epochs: int = 3, teacher: str = "") -> Path:
    draw(folder / "images")
    (folder / "mine.toml").write_text(RECIPE.format(pack=pack, epochs=epochs, teacher=teacher))
    (folder / "mine.py").write_text(NETWORK)
    return folder


WORDS = ("teacher", "--recipe", "mine.toml")


@pytest.mark.parametrize("action", ["cut short", "overwritten", "used by another"])
def test_a_network_of_a_changed_pack_is_not_finished(action: str, tmp_path: Path) -> None:
    place(tmp_path)
    succeed(decant(*WORDS, "--runs", "expected", cwd=tmp_path, DECANT_STORE="store"))
    expected = only(tmp_path, "expected/mine/teacher-*/weights.safetensors").read_bytes()
    done = decant(*WORDS, cwd=tmp_path, DECANT_STORE="store", ACTION=action)
    if action != "used by another":
        said = refused(done).splitlines()[-1]
        assert said.startswith("decant: store/packs/imagefolder-train-"), said
        assert said.endswith("delete it and run the same command again, which decodes the images anew")
        assert not list(tmp_path.glob("runs/**/result.json"))
        only(tmp_path, "store/packs/imagefolder-train-*.pack").unlink()
        done = decant(*WORDS, cwd=tmp_path, DECANT_STORE="store")
    succeed(done)
    assert only(tmp_path, "runs/mine/teacher-*/weights.safetensors").read_bytes() == expected


def test_weights_that_are_others_than_those_of_the_folder_are_refused(tmp_path: Path) -> None:
    import torch

    place(tmp_path, pack="never", teacher='weights = "weights.pth"')
    drawn = {"1.weight": torch.randn(3, 192), "1.bias": torch.zeros(3)}
    torch.save(drawn, tmp_path / "weights.pth")
    torch.save({**drawn, "1.bias": torch.ones(3)}, tmp_path / "other.pth")
    said = refused(decant(*WORDS, cwd=tmp_path, ACTION="other weights")).splitlines()[-1]
    assert said == (
        "decant: weights.pth: its content has changed while this command ran; run the same command again"
    )
    succeed(decant(*WORDS, cwd=tmp_path))


def test_images_that_change_after_their_folder_was_listed_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep("as needed", monkeypatch)
    data = read(write_folder(tmp_path), pack="never")
    everything(data)
    assert "was written to" not in capsys.readouterr().err
    path = tmp_path / "train" / "cat" / "a.png"
    os.utime(path, ns=(1, 1))
    forget_what_was_said()
    everything(data)
    everything(data)
    assert capsys.readouterr().err.count(f"warning: {path}: was written to since its folder was listed") == 1
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(path)
    with pytest.raises(
        DataError, match=r"a\.png: had \d+ bytes when its folder was listed, and now has \d+; run"
    ):
        everything(data)
