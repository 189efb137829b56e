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
from tests.helpers.commands import decant, fork_python, only, refused, succeed
from tests.helpers.folders import everything, keep, read, write_folder
from tests.helpers.processes import PATIENCE, finished

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
        if action and (Net.calls == 5 and self.training or action == "in the pass"):
            path = next(Path("store/packs").glob("imagefolder-train-*.pack"))
            path.chmod(0o644)
            if action == "cut short":
                os.truncate(path, 5_000)
            elif action in ("overwritten", "in the pass"):
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


def test_no_cache_is_made_of_a_changed_pack(tmp_path: Path) -> None:
    place(tmp_path)
    succeed(decant(*WORDS, cwd=tmp_path, DECANT_STORE="store"))
    said = refused(
        decant("cache-logits", *WORDS[1:], cwd=tmp_path, DECANT_STORE="store", ACTION="in the pass")
    )
    assert "has changed since it was read; delete it" in said
    assert not list(tmp_path.glob("store/*.h5")) + list(tmp_path.glob("store/*.partial"))


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


def test_a_table_that_is_cut_short_while_it_is_imported_makes_no_cache(tmp_path: Path) -> None:
    """Its digest, which names the cache, was of the whole table."""
    script = """
import os, sys
import numpy as np
from decant.cache import CacheError, LogitCacheWriter, Store, import_logits
from decant.pipeline.data.array_files import read_table

np.save("logits.npy", 5 * np.random.default_rng(0).standard_normal((20_000, 10)).astype(np.float32))
table, size = read_table("logits.npy"), os.path.getsize("logits.npy")
write = LogitCacheWriter.write
def cut_first(*args, **more):
    os.truncate("logits.npy", size // 2)
    write(*args, **more)
LogitCacheWriter.write = cut_first
try:
    import_logits(Store("store"), table, None, teacher={}, data={"name": "toy"})
except CacheError as error:
    print(error)
"""
    said = finished(fork_python(script, cwd=tmp_path))
    assert said == "logits: the table has changed while it was read; import it again\n"
    assert not list(tmp_path.glob("store/*.h5"))


def test_what_a_library_maps_and_is_cut_short_ends_with_a_line(tmp_path: Path) -> None:
    script = """
import mmap, os
from pathlib import Path
from decant.cache.io.bus_errors import naming
Path("weights.safetensors").write_bytes(bytes(100_000))
with open("weights.safetensors", "r+b") as file, naming(Path("weights.safetensors")):
    mapped = mmap.mmap(file.fileno(), 100_000)
    os.truncate("weights.safetensors", 10)
    mapped[50_000]
"""
    child = fork_python(script, cwd=tmp_path)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 1
    assert said == "decant: weights.safetensors: was cut short, or its disk failed, while it was read\n"
