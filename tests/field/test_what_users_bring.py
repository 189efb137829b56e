"""Whatever is brought, a command ends in a right result, or with one message and exit code 1 or 2: no traceback, and
nothing is left out without a word. What is read of a folder is compared with torchvision's and timm's own readers,
what is loaded of a file with the state dict that was put in, and cached logits with a forward pass.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder

from decant.cache import LogitCache
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import describe_data
from decant.pipeline.data.found_images import image_suffixes, is_litter
from decant.pipeline.data.samples import LabelledData
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.brought import Brought, Folder, State, brought, folders, network
from tests.helpers.commands import decant

try:
    from timm.data.readers.reader_image_folder import ReaderImageFolder
except ImportError:
    ReaderImageFolder = None

DRAWN = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate)
"""No shrinking: a case is a few commands, which hypothesis would run a thousand times, and its message has it all."""
PHASES = ("teacher", "cache-logits", "student")


def is_image(path: str) -> bool:
    name = os.path.basename(path)
    return not name.startswith(".") and Path(name).suffix.lower() in image_suffixes()


def require_words(done: subprocess.CompletedProcess[str], said: str) -> None:
    """The command has ended well, or with one message."""
    assert done.returncode in (0, 1, 2), said
    assert "Traceback" not in done.stderr, said
    assert "unexpected error" not in done.stderr, said
    messages = [line for line in done.stderr.splitlines() if line.startswith(("decant: ", "Error: "))]
    assert len(messages) == (done.returncode > 0), said


def describe(root: Path) -> LabelledData:
    """The training part of an image folder."""
    return describe_data(DataSettings(name="imagefolder", root=str(root)), ViewsSettings(), "train")


def require_same_files(root: Path, stderr: str, labels: NDArray[Any], said: str) -> None:
    """The training part is what torchvision and timm read of it, and what is not used was counted."""
    given = [path for path in (root / "train").rglob("*") if not path.is_dir()]
    for path in list((root / "train").iterdir()):  # which torchvision would take for classes
        if path.is_dir() and (path.name.startswith(".") or is_litter(path.name)):
            shutil.rmtree(path)
    theirs = ImageFolder(str(root / "train"), is_valid_file=is_image)
    assert labels.tolist() == [label for _, label in theirs.samples], said
    data = describe(root)
    assert list(data.classes) == theirs.classes, said
    left_out = len([path for path in given if not is_litter(path.name)]) - len(theirs.samples)
    assert (f"left out {left_out} of {left_out + len(theirs.samples)} files" in stderr) == (left_out > 0), (
        said
    )
    if ReaderImageFolder is not None:
        require_same_as_timm(root, theirs, said)


def require_same_as_timm(root: Path, theirs: ImageFolder, said: str) -> None:
    """timm takes the folder that a file lies in for its class, and few endings: of what it reads the classes agree."""
    reader = ReaderImageFolder(str(root / "train"))
    names = {label: name for name, label in reader.class_to_idx.items()}
    of_timm = {path: names[label] for path, label in reader.samples if is_image(path)}
    of_timm = {path: name for path, name in of_timm.items() if Path(path).parent.parent == root / "train"}
    ours = {path: theirs.classes[label] for path, label in theirs.samples}
    assert {path: ours.get(path) for path in of_timm} == of_timm, said


def reference_logits(run: Path, inputs: NDArray[Any], num_classes: int) -> NDArray[np.float32]:
    """A forward pass of the weights of a run over images (N, 3, H, W), by torch alone."""
    state = safetensors.torch.load_file(run / "weights.safetensors")
    body = network(num_classes).eval()
    body.load_state_dict(
        {name.removeprefix("body."): state[name] for name in state if name.startswith("body.")}
    )
    pixels = torch.from_numpy(inputs.astype(np.float32)) / (255 if inputs.dtype == np.uint8 else 1)
    with torch.no_grad():
        return np.asarray(body((pixels - 0.5) / 0.25).numpy())


def require_right(things: Brought, folder: Path, put_in: State | None, stderr: str, said: str) -> None:
    """What two commands made is right: the weights, the samples in their order, and the logits."""
    (run,) = {path.parent for path in folder.glob("runs/mine/teacher-*/result.json")}
    cache = LogitCache.open(*folder.glob("caches/*.h5"))
    labels = np.asarray(cache.labels)
    if isinstance(things.data, Folder):
        require_same_files(folder / "images", stderr, labels, said)
        of_torchvision = ImageFolder(str(folder / "images/train"), is_valid_file=is_image).samples
        paths = [path for _, path in sorted((label, Path(path)) for path, label in of_torchvision)]
        inputs = np.stack([as_pixels(path) for path in paths])
    else:
        assert labels.tolist() == [index % 3 for index in range(12)], said
        inputs = np.stack([drawn(index) for index in range(12)])
        inputs = {"floats": inputs / 255, "bfloat16": inputs / 256, "with gradients": inputs / 256}.get(
            things.data.value, inputs
        )
    num_classes = cache.num_outputs
    if put_in is not None and not things.epochs:
        state = safetensors.torch.load_file(run / "weights.safetensors")
        for name, tensor in put_in.items():
            if "num_batches" not in name:
                assert torch.equal(state[f"body.{name}"], tensor), f"{name}\n{said}"
    expected = reference_logits(run, inputs, num_classes)
    assert np.allclose(cache.logits(slice(None)), expected, atol=0.02, rtol=1e-3), said


def drawn(index: int) -> NDArray[np.uint8]:
    """The pixels of a sample of `mine:data`."""
    return np.random.default_rng([index, 1]).integers(0, 255, (3, 8, 8), dtype=np.uint8)


def as_pixels(path: Path) -> NDArray[np.uint8]:
    """An image as its own library gives it: the first frame in RGB; of 16 bits the upper 8."""
    with Image.open(path) as image:
        pixels = np.asarray(image) >> 8 if image.mode.startswith("I") else np.asarray(image.convert("RGB"))
    pixels = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    return pixels.astype(np.uint8).transpose(2, 0, 1)


def check(things: Brought, commands: tuple[str, ...]) -> None:
    """The commands, one after the other, until one refuses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_in, heard = things.write(folder), ""
        for command in commands:
            done = decant(command, *things.words, cwd=folder)
            said = f"{things}\ndecant {command} {' '.join(things.words)}\n{done.stdout}\n{done.stderr}"
            require_words(done, said)
            assert not (things.is_right and done.returncode), said
            heard = heard or done.stderr
            if done.returncode:
                return
            if command == "cache-logits" and not things.overrides and not things.breaks:
                require_right(things, folder, put_in, heard, said)


@hypothesis.settings(max_examples=60, derandomize=True, phases=DRAWN)
@hypothesis.given(brought())
def test_whatever_is_brought_ends_in_a_right_result_or_in_words(things: Brought) -> None:
    check(things, PHASES[:2])


@pytest.mark.slow
@hypothesis.settings(max_examples=int(os.environ.get("DECANT_EXAMPLES", "2000")), phases=DRAWN)
@hypothesis.given(brought())
def test_thousands_of_things_end_in_a_right_result_or_in_words(things: Brought) -> None:
    check(things, (*PHASES, "evaluate", "report", "status"))


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.booleans().flatmap(folders))
def test_a_folder_is_read_as_torchvision_and_timm_read_it_or_refused(given: Folder) -> None:
    with tempfile.TemporaryDirectory() as name:
        given.write(Path(name))
        forget_what_was_said()
        stderr, refusal = io.StringIO(), ""
        with contextlib.redirect_stderr(stderr):
            try:
                labels = describe(Path(name)).labels
            except DataError as error:
                refusal = str(error)
        said = f"{given}\n{stderr.getvalue()}\n{refusal}"
        if refusal:
            assert not given.is_right, said
            assert "\n" not in refusal, said
        else:
            require_same_files(Path(name), stderr.getvalue(), labels, said)


def test_a_third_of_what_is_drawn_is_right() -> None:
    seen: list[bool] = []

    @hypothesis.settings(max_examples=200, derandomize=True, database=None)
    @hypothesis.given(brought())
    def look(things: Brought) -> None:
        seen.append(things.is_right)

    look()
    assert 0.15 < sum(seen) / len(seen) < 0.6, sum(seen)
