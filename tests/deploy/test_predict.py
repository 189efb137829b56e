"""What is said of an image file is the softmax of the network on the pixels that the run's data would have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.image_decode import decode
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.deploy import predict
from decant.pipeline.deploy.predict import Predictor
from decant.pipeline.errors import ModelError
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.open import FinishedRun, open_run
from decant.pipeline.runs.saved_network import load_network
from tests.helpers.small import CPU, teach


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Digits: one channel of 8 × 8."""
    return open_run(teach(tmp_path_factory.mktemp("prediction")).folder)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """An image folder, brought to 12 × 12 by its shorter side of 14, and cropped to 10 × 10."""
    folder = tmp_path_factory.mktemp("coloured")
    generator = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(("dark", "ünd <b>bright")):
            (folder / "images" / part / name).mkdir(parents=True)
            for place in range(6):
                pixels = generator.integers(
                    100 * label, 100 * label + 60, (15 + place, 20, 3), dtype=np.uint8
                )
                Image.fromarray(pixels).save(folder / "images" / part / name / f"{place}.png")
    settings = [
        "data.name=imagefolder",
        f"data.root={folder / 'images'}",
        "views.size=12",
        "views.resize=14",
        "views.augment=[{ op = 'center-crop', size = 10 }]",
        "teacher.network={ name = 'conv', width = 4 }",
        "teacher.epochs=2",
    ]
    return open_run(make_teacher(Plan.of(load_recipe("digits", settings), folder / "runs"), CPU)[0].folder)


def softmax(run: FinishedRun, inputs: torch.Tensor) -> torch.Tensor:
    network = load_network(run.result).eval()
    with torch.inference_mode():
        return network(inputs).softmax(1)


def test_probabilities_are_the_softmax_of_the_network(run: FinishedRun, tmp_path: Path) -> None:
    inputs, _ = Splits.load(run.recipe.settings).test.batch([0, 5])
    files = [tmp_path / f"{place}.png" for place in range(2)]
    for file, image in zip(files, inputs, strict=True):
        Image.fromarray(image[0].numpy()).save(file)
    expected = softmax(run, inputs)
    for place, found in enumerate(Predictor.of(run).predict(files, top=3)):
        assert found.file == files[place]
        best = expected[place].argsort(descending=True)[:3].tolist()
        assert [name for name, _ in found.classes] == [str(label) for label in best]
        assert [share for _, share in found.classes] == pytest.approx(expected[place][best].tolist())


def test_all_classes_are_given_where_more_are_asked_for(run: FinishedRun, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 90).save(tmp_path / "grey.png")
    (found,) = Predictor.of(run).predict([tmp_path / "grey.png"], top=50)
    assert len(found.classes) == 10
    assert sum(share for _, share in found.classes) == pytest.approx(1)


def test_a_file_becomes_the_pixels_that_the_data_have(coloured: FinishedRun) -> None:
    test = Splits.load(coloured.recipe.settings).test
    root = Path(coloured.recipe.settings.data.root)
    predictor = Predictor.of(coloured)
    for index, file in enumerate(sorted(root.glob("val/*/*.png"))):
        assert np.array_equal(predictor.pixels(file), test[index][0].numpy()), file
    assert predictor.classes == ("dark", "ünd <b>bright")


def test_grey_and_colour_are_brought_to_the_channels_of_the_network(
    run: FinishedRun, coloured: FinishedRun, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    Image.fromarray(pixels[:, :, 0]).save(tmp_path / "grey.png")
    grey = Predictor.of(run)
    assert np.array_equal(grey.pixels(tmp_path / "grey.png")[0], pixels[:, :, 0])
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal(grey.pixels(tmp_path / "colour.png")[0], expected)
    found = Predictor.of(coloured).pixels(tmp_path / "grey.png")
    assert found.shape == (3, 10, 10)
    assert np.array_equal(found[0], found[2])


def test_an_image_of_another_size_is_brought_to_the_networks(run: FinishedRun, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    expected = decode(tmp_path / "large.png", ViewsSettings(size=8))
    grey = np.asarray(Image.fromarray(expected.transpose(1, 2, 0)).convert("L"))
    assert np.array_equal(Predictor.of(run).pixels(tmp_path / "large.png")[0], grey)


def test_a_size_that_nothing_brings_to_the_networks_is_said(run: FinishedRun, tmp_path: Path) -> None:
    Image.new("L", (9, 8)).save(tmp_path / "odd.png")
    predictor = replace(Predictor.of(run), views=ViewsSettings())
    (found,) = predictor.predict([tmp_path / "odd.png"])
    assert found.problem is not None
    assert "8 × 9 pixels, where the network takes 8 × 8" in found.problem


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_done(
    run: FinishedRun, tmp_path: Path
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    files = [tmp_path / name for name in ("bad.png", "gone.png", "good.png")]
    bad, gone, good = Predictor.of(run).predict(files)
    assert bad.problem is not None
    assert bad.problem.startswith(f"{tmp_path / 'bad.png'}: not a readable image")
    assert gone.problem == f"{tmp_path / 'gone.png'}: no such file"
    assert bad.classes == gone.classes == ()
    assert good.problem is None
    assert len(good.classes) == 5
    assert bad.as_json() == {"file": str(tmp_path / "bad.png"), "problem": bad.problem}
    assert good.as_json()["classes"][0] == {"class": good.classes[0][0], "probability": good.classes[0][1]}


def without_data(run: FinishedRun, to: Path) -> FinishedRun:
    """The run where its data have gone."""
    data = run.recipe.settings.data.model_copy(update={"root": str(to / "gone")})
    moved = replace(run.recipe, settings=run.recipe.settings.model_copy(update={"data": data}))
    return replace(run, recipe=moved)


def older(run: FinishedRun) -> FinishedRun:
    """The run as it was finished before results had class names."""
    return replace(run, result=replace(run.result, classes=None, input_dtype=None))


def test_the_data_are_not_needed(
    coloured: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(coloured.recipe.settings.data.root)
    file = next(root.glob("val/*/*.png"))
    expected = list(Predictor.of(older(coloured)).predict([file]))
    monkeypatch.delattr(predict, "load_data")
    predictor = Predictor.of(without_data(coloured, tmp_path))
    assert predictor.classes == ("dark", "ünd <b>bright")
    assert predictor.names_missing is None
    assert list(predictor.predict([file])) == expected


def test_classes_of_an_older_run_are_numbers_where_the_data_are_gone(
    coloured: FinishedRun, tmp_path: Path
) -> None:
    assert Predictor.of(older(coloured)).classes == ("dark", "ünd <b>bright")
    predictor = Predictor.of(older(without_data(coloured, tmp_path)))
    assert predictor.classes == ("0", "1")
    assert predictor.names_missing is not None
    assert predictor.names_missing.startswith("classes are shown by number: data.root: no such folder")


def test_data_that_have_changed_name_no_class_of_an_older_run(
    run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = np.zeros((1, 1, 8, 8), np.uint8), np.zeros(1, np.int64)
    changed = ArrayData("digits", "test", pixels, labels, ("one", "other"))
    monkeypatch.setattr(predict, "load_data", lambda *given: changed)
    assert Predictor.of(older(run)).classes == tuple("0123456789")


def test_float_arrays_are_no_images(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    floats = replace(run, result=replace(run.result, input_dtype="float32"))
    with pytest.raises(ModelError, match="learnt from float32 arrays, which no image file has"):
        Predictor.of(floats)
    pixels, labels = np.zeros((1, 1, 8, 8), np.float32), np.zeros(1, np.int64)
    monkeypatch.setattr(
        predict, "load_data", lambda *given: ArrayData("digits", "test", pixels, labels, tuple("0123456789"))
    )
    with pytest.raises(ModelError, match="learnt from float32 arrays, which no image file has"):
        Predictor.of(older(run))


def test_a_network_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    regression = make_teacher(Plan.of(load_recipe("regression", ["teacher.epochs=1"]), tmp_path), CPU)[0]
    with pytest.raises(ModelError, match="a regression, which has no classes"):
        Predictor.of(open_run(regression.folder))
    run = open_run(teach(tmp_path, "teacher.epochs=1").folder)
    spec = replace(run.result.network, input_shape=(10,))
    with pytest.raises(ModelError, match=r"inputs of shape \(10,\), which no image file has"):
        Predictor.of(replace(run, result=replace(run.result, network=spec)))
