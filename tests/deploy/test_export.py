"""Exported files answer as their network does, are told what they need, and are not published where they differ."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from decant.cache.io.files import write_atomically
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.deploy import Exported, export, export_run
from decant.pipeline.deploy.check import Checked
from decant.pipeline.deploy.deployable import Deployable, trace
from decant.pipeline.deploy.export import read_summary
from decant.pipeline.deploy.formats import METADATA
from decant.pipeline.deploy.predict import Predictor
from decant.pipeline.deploy.quantisation import calibration_inputs
from decant.pipeline.errors import ModelError
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.json_files import read_json
from decant.pipeline.runs.open import FinishedRun, open_run
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import forget_what_was_said
from decant.pipeline.training.metrics import measure
from tests.helpers.processes import ROOT
from tests.helpers.small import CPU

needs_onnx = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="the extra `export` is not installed"
)

CLASSES = ("<script>alert(1)</script>", 'naïve "猫"', "c")
OWN_DATA = f"""
import numpy as np
CLASSES = {CLASSES!r}
class Images:
    classes = CLASSES
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def __getitem__(self, i):
        noise = np.random.default_rng(i).integers(0, 60, (3, 8, 8))
        noise[i % 3] += 120
        return noise.astype(np.uint8), i % 3
def parts(root, split): return Images(90 if split == "train" else 51)
"""
SETTINGS = (
    "data.name=striped_for_export:parts",
    "teacher.network={ name = 'conv', width = 4 }",
    "teacher.epochs=20",
    "views.count=3",
    "views.augment=[{ op = 'pad-crop', padding = 2 }]",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    """Three classes of coloured images, learnt by a small convolutional network."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "striped_for_export.py").write_text(OWN_DATA, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield open_run(make_teacher(Plan.of(load_recipe("digits", SETTINGS), folder / "runs"), CPU)[0].folder)


@pytest.fixture(scope="module")
def exported(run: FinishedRun) -> Exported:
    return export_run(run, max_loss=10)


def session(run: FinishedRun, name: str) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(run.folder / "export" / name, providers=["CPUExecutionProvider"])


def images_of(run: FinishedRun) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    test = Splits.load(run.recipe.settings).test
    inputs, labels = test.batch(range(len(test)))
    return inputs.numpy(), labels.numpy()


def in_pytorch(run: FinishedRun, inputs: NDArray[Any]) -> NDArray[np.float32]:
    network = load_network(run.result).eval()
    with torch.inference_mode():
        outputs: NDArray[np.float32] = network(torch.from_numpy(inputs)).numpy()
    return outputs


@needs_onnx
def test_the_table_is_what_onnxruntime_says_of_the_files(run: FinishedRun, exported: Exported) -> None:
    inputs, labels = images_of(run)
    expected = in_pytorch(run, inputs)
    said = read_json(run.folder / "export/export.json")
    assert list(said["formats"]) == ["pt2", "onnx", "int8"] == [row.name for row in exported.rows[1:]]
    assert said["student"]["value"] == float((expected.argmax(1) == labels).mean())
    for row in exported.rows[2:]:
        entry = said["formats"][row.name]
        content = (run.folder / "export" / entry["file"]).read_bytes()
        outputs = session(run, entry["file"]).run(None, {"images": inputs})[0]
        assert entry["bytes"] == row.bytes == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["samples"] == row.samples == 51
        assert row.value == entry["value"] == float((outputs.argmax(1) == labels).mean())
        assert row.largest_difference == pytest.approx(np.abs(outputs - expected).max(), rel=0.01, abs=1e-5)
        assert row.largest_output == pytest.approx(np.abs(expected).max(), rel=1e-5)
    onnx, int8 = exported.rows[2:]
    assert onnx.largest_difference < 1e-4 < int8.largest_difference < 0.3 * onnx.largest_output
    assert exported.rows[0].value is not None
    assert exported.rows[0].value > 0.9, "a network that has learnt nothing shows nothing"


@needs_onnx
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("name", ["student.pt2", "student.onnx", "student.int8.onnx"])
def test_a_batch_has_any_size(run: FinishedRun, exported: Exported, name: str, batch: int) -> None:
    inputs = images_of(run)[0][:batch]
    if name == "student.pt2":
        outputs = torch.export.load(run.folder / "export" / name).module()(torch.from_numpy(inputs)).numpy()
    else:
        outputs = session(run, name).run(None, {"images": inputs})[0]
    expected = in_pytorch(run, inputs)
    assert outputs.shape == (batch, 3)
    assert outputs.dtype == np.float32
    assert np.abs(outputs - expected).max() < (0.3 * np.abs(expected).max() if "int8" in name else 1e-4)


@needs_onnx
@pytest.mark.parametrize("name", ["student.onnx", "student.int8.onnx"])
def test_an_onnx_file_says_what_it_takes_and_what_it_gives(
    run: FinishedRun, exported: Exported, name: str
) -> None:
    found = session(run, name)
    metadata = found.get_modelmeta().custom_metadata_map
    (given,) = found.get_inputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["batch", 3, 8, 8])
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert "猫" in metadata["classes"], "readable in a viewer too"
    assert json.loads(metadata["input"]) == {
        "name": "images",
        "shape": ["batch", 3, 8, 8],
        "dtype": "uint8",
        "layout": "NCHW",
        "range": [0, 255],
        "colours": "RGB",
    }
    assert json.loads(metadata["output"]) == {"name": "logits", "dtype": "float32"}
    assert (metadata["opset"], metadata["weights_sha256"]) == ("18", run.result.weights_sha256)
    assert ("quantisation" in metadata) == ("int8" in name)


def test_a_pt2_file_says_the_same(run: FinishedRun, exported: Exported) -> None:
    extra = {METADATA: ""}
    torch.export.load(run.folder / "export/student.pt2", extra_files=extra)
    assert json.loads(json.loads(extra[METADATA])["classes"]) == list(CLASSES)


def test_classes_are_those_that_the_run_learnt_or_of_an_older_run_the_datas(
    run: FinishedRun, tmp_path: Path
) -> None:
    for names, expected in ((["x", "y", "z"], ["x", "y", "z"]), (None, list(CLASSES))):
        result = replace(run.result, folder=_copy(run.folder, tmp_path), classes=names)
        export_run(replace(run, result=result), ["pt2"])
        metadata = read_json(tmp_path / "export/export.json")["metadata"]
        assert json.loads(metadata["classes"]) == expected


def test_no_file_names_what_lies_on_this_machine(run: FinishedRun, exported: Exported) -> None:
    for file in exported.files:
        assert str(ROOT).encode() not in file.read_bytes(), file
        assert file.suffix != ".onnx" or b"decant.pipeline.networks" not in file.read_bytes(), file


@needs_onnx
def test_quantising_leaves_the_preprocessing_as_it_is(run: FinishedRun, exported: Exported) -> None:
    import onnx
    import onnxruntime

    model = onnx.load(run.folder / "export/student.int8.onnx")
    reached = "images"
    while True:
        (node,) = (node for node in model.graph.node if reached in node.input)
        if node.op_type == "QuantizeLinear":
            break
        reached = node.output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(reached, onnx.TensorProto.FLOAT, None))
    inputs = images_of(run)[0]
    asked = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    preprocess = load_network(run.result).preprocess
    assert isinstance(preprocess, nn.Module)
    expected = preprocess(torch.from_numpy(inputs)).numpy()
    assert np.abs(asked.run([reached], {"images": inputs})[0] - expected).max() < 1e-6


@needs_onnx
def test_probabilities_are_the_softmax_of_logits(run: FinishedRun, tmp_path: Path) -> None:
    elsewhere = replace(run, result=replace(run.result, folder=_copy(run.folder, tmp_path)))
    export_run(elsewhere, ["onnx", "int8"], probabilities=True, max_loss=10)
    inputs = images_of(run)[0]
    expected = torch.from_numpy(in_pytorch(run, inputs)).softmax(1).numpy()
    for name, bound in (("student.onnx", 1e-5), ("student.int8.onnx", 0.2)):
        outputs = session(elsewhere, name).run(["probabilities"], {"images": inputs})[0]
        assert np.abs(outputs - expected).max() < bound
        assert np.abs(outputs.sum(1) - 1).max() < 1e-5


def _copy(folder: Path, to: Path) -> Path:
    for name in ("result.json", "recipe.toml", "weights.safetensors"):
        (to / name).write_bytes((folder / name).read_bytes())
    return to


@needs_onnx
def test_a_file_that_answers_otherwise_is_named_and_nothing_is_published(
    run: FinishedRun, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file: file.read_bytes() for file in exported.files}

    def broken(deployable: Deployable, example: torch.Tensor) -> torch.export.ExportedProgram:
        other = copy.deepcopy(deployable)
        with torch.no_grad():
            list(other.parameters())[-1][0] += 0.5
        return trace(other, example)

    monkeypatch.setattr(export, "trace", broken)
    made = export_run(run, max_loss=100)
    assert made.files == ()
    pt2, onnx = made.problems
    for name, problem in (("pt2", pt2), ("onnx", onnx)):
        assert problem.startswith(f"{name}: an output differs from the network's by 0.5; at most 0.00")
    assert {file: file.read_bytes() for file in exported.files} == before


@needs_onnx
def test_int8_may_lose_so_much_and_no_more(exported: Exported) -> None:
    network, int8 = replace(exported.rows[0], value=0.98), exported.rows[3]
    for value, max_loss, fine in [(0.96, 2.0, True), (0.955, 2.4, False), (1.0, 0.0, True)]:
        assert (replace(int8, value=value).loss_problem(network, max_loss) is None) == fine, value
    problem = replace(int8, value=0.955).loss_problem(network, 2.4)
    assert problem is not None
    assert "int8: 2.50 points of top-1 are lost" in problem
    assert "at most 2.4 points" in problem
    assert replace(int8, value=1.0, largest_difference=float("nan")).loss_problem(network, 2.0) is not None


def test_the_bound_of_float32_grows_with_the_outputs_and_holds_for_no_nan(exported: Exported) -> None:
    row = exported.rows[1]
    for largest, difference, fine in [
        (0.1, 0.0009, True),
        (0.1, 0.0011, False),
        (50.0, 0.049, True),
        (50.0, 0.051, False),
        (1.0, float("nan"), False),
    ]:
        checked: Checked = replace(row, largest_output=largest, largest_difference=difference)
        assert (checked.difference_problem() is None) == fine, (largest, difference)
        assert (replace(checked, value=None).loss_problem(row, 2.0) is None) == fine


def test_without_the_extra_the_default_leaves_onnx_out_and_says_so(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(run, result=replace(run.result, folder=_copy(run.folder, tmp_path)))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made = export_run(elsewhere)
    assert [file.name for file in made.files] == ["student.pt2", "export.json"]
    assert made.left_out is not None
    assert "onnx and int8 are left out" in made.left_out
    assert "pip install 'decant-kd[export]'" in made.left_out
    with pytest.raises(
        ModelError, match=r"onnxruntime is not installed; run: pip install 'decant-kd\[export\]'"
    ):
        export_run(elsewhere, ["onnx"])


def test_what_was_made_before_stays_in_the_summary(
    run: FinishedRun, exported: Exported, tmp_path: Path
) -> None:
    elsewhere = replace(run, result=replace(run.result, folder=_copy(run.folder, tmp_path)))
    summary = tmp_path / "export/export.json"
    export_run(elsewhere, ["pt2"], samples=5)
    content = read_json(summary)
    assert content["formats"]["pt2"]["samples"] == 5
    content["formats"] = {
        "onnx": content["formats"]["pt2"] | {"name": "onnx", "file": "student.onnx", "samples": 7},
        "int8": content["formats"]["pt2"] | {"name": "int8", "file": "student.int8.onnx"},
    }
    summary.write_text(json.dumps(content))
    (tmp_path / "export/student.onnx").write_bytes(b"from before")
    export_run(elsewhere, ["pt2"])
    again = read_json(summary)["formats"]
    assert list(again) == ["pt2", "onnx"], "the file of int8 is gone"
    assert again["onnx"]["samples"] == 7


def test_files_go_where_they_are_asked_for_and_the_run_stays_as_it_is(
    run: FinishedRun, tmp_path: Path
) -> None:
    """As for a run in a folder that is read-only, which root could write to all the same."""
    (tmp_path / "run").mkdir()
    folder, output = _copy(run.folder, tmp_path / "run"), tmp_path / "site" / "models"
    elsewhere = replace(run, result=replace(run.result, folder=folder))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for _ in range(2):
        made = export_run(elsewhere, ["pt2"], samples=5, output=output)
        assert made.files == (output / "student.pt2", output / "export.json")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert list((tmp_path / "site").iterdir()) == [output]

    content = read_json(output / "export.json")
    content["metadata"]["weights_sha256"] = "0" * 64
    (output / "export.json").write_text(json.dumps(content))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/student.pt2").write_bytes(b"the user's")
    (tmp_path / "also").mkdir()
    (tmp_path / "also/export.json").write_text('{"orders": []}')
    for taken in (output, tmp_path / "own", tmp_path / "also"):
        kept = {path: path.read_bytes() for path in taken.iterdir()}
        with pytest.raises(ModelError, match=r"/\w+\.\w+: is there already, and not of an export of this"):
            export_run(elsewhere, ["pt2"], samples=5, output=taken)
        assert {path: path.read_bytes() for path in taken.iterdir()} == kept


def test_calibration_goes_through_the_views_of_training(run: FinishedRun) -> None:
    train = Splits.load(run.recipe.settings).student_train
    inputs = calibration_inputs(train, 9)
    indices = np.linspace(0, 89, 9).astype(int)
    expected = [train[int(index), view % 3][0].numpy() for view, index in enumerate(indices)]
    assert np.array_equal(inputs, np.stack(expected))
    assert not np.array_equal(inputs[1], train[int(indices[1]), 0][0].numpy()), "its view 1, not its view 0"
    assert len(calibration_inputs(train, 1000)) == 90


@needs_onnx
def test_five_lines_classify_an_image_file_with_onnxruntime_alone(
    run: FinishedRun, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, label = (values[4] for values in images_of(run))
    Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / "image.png")
    (tmp_path / "student.onnx").write_bytes((run.folder / "export/student.onnx").read_bytes())
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert len(EXAMPLE.split("\n\n")[1].splitlines()) == 5
    exec(EXAMPLE.replace("32", "8"), {"print": said.append})
    (prediction,) = Predictor.of(run).predict([tmp_path / "image.png"], top=1)
    assert said == [CLASSES[label]] == [prediction.classes[0][0]]


EXAMPLE = """\
import json, numpy, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("student.onnx")
image = Image.open("image.png").convert("RGB").resize((32, 32))  # or "L" of one channel
pixels = numpy.asarray(image).reshape(1, 32, 32, -1).transpose(0, 3, 1, 2)
[[logits]] = session.run(None, {"images": pixels})
print(json.loads(session.get_modelmeta().custom_metadata_map["classes"])[logits.argmax()])"""


@needs_onnx
def test_a_regression_of_features_is_exported_too(tmp_path: Path) -> None:
    taught = make_teacher(Plan.of(load_recipe("regression", ["teacher.epochs=3"]), tmp_path), CPU)[0]
    run = open_run(taught.folder)
    made = export_run(run, max_loss=10)
    test = Splits.load(run.recipe.settings).test
    inputs, targets = test.batch(range(len(test)))
    (outputs,) = session(run, "student.onnx").run(["outputs"], {"features": inputs.numpy()})
    assert made.rows[2].figure == "R²"
    assert made.rows[2].value == pytest.approx(measure(torch.from_numpy(outputs), targets)["r2"], abs=1e-4)
    metadata = session(run, "student.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == []
    assert json.loads(metadata["input"]) == {"name": "features", "shape": ["batch", 10], "dtype": "float32"}
    with pytest.raises(ModelError, match="a regression, whose outputs have no probabilities"):
        export_run(run, ["pt2"], probabilities=True)


def test_samples_without_labels_are_held_against_the_network_itself(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(run, result=replace(run.result, folder=_copy(run.folder, tmp_path)))
    load_parts = Splits.load

    def unlabelled(settings: Any) -> Splits:
        splits = load_parts(settings)
        splits.test.data.labels = np.full(len(splits.test), -1)
        return splits

    monkeypatch.setattr(export.Splits, "load", unlabelled)
    made = export_run(elsewhere, ["pt2"])
    assert [row.value for row in made.rows] == [1.0, 1.0]


def test_labels_of_other_classes_are_not_taken_for_the_networks(
    run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forget_what_was_said()
    others = replace(run.result, folder=_copy(run.folder, tmp_path), classes=[*CLASSES[1:], CLASSES[0]])
    made = export_run(replace(run, result=others), ["pt2"])
    assert [row.value for row in made.rows] == [1.0, 1.0]
    assert f"its class 0 is {CLASSES[1]!r}, and that of the data is {CLASSES[0]!r}" in capsys.readouterr().err


class Branching(nn.Module):
    """Takes another way for dark images, which no trace can."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs if bool(inputs.sum() > 0) else -inputs


def test_a_network_that_cannot_be_traced_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="cannot trace this network for any batch size"):
        trace(Deployable(Branching()), torch.zeros(2, 3))


def test_a_traced_network_has_no_lines_of_code_in_it(run: FinishedRun) -> None:
    program = trace(Deployable(load_network(run.result)), torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    file = io.BytesIO()
    torch.export.save(program, file)
    assert b"preprocess.py" not in file.getvalue()


def test_what_came_into_a_given_folder_during_an_export_is_not_replaced(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decant.pipeline.deploy import export as module

    inner = module._run_each

    def meanwhile(*args: Any) -> Any:
        (tmp_path / "site").mkdir()
        (tmp_path / "site/student.pt2").write_bytes(b"another's")
        return inner(*args)

    monkeypatch.setattr(module, "_run_each", meanwhile)
    with pytest.raises(ModelError, match="is there already"):
        export_run(run, ["pt2"], samples=5, output=tmp_path / "site")
    assert (tmp_path / "site/student.pt2").read_bytes() == b"another's"


@pytest.mark.parametrize("exported_before", [False, True])
def test_an_export_that_was_killed_between_its_files_goes_on_in_a_given_folder(
    run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported_before: bool
) -> None:
    """And what is left of it describes no file as what it is not."""
    from decant.pipeline.deploy import export as module

    class Killed(BaseException):
        pass

    def killed_after(path: Path, content: bytes) -> None:
        write_atomically(path, content)
        raise Killed

    if exported_before:
        export_run(run, ["pt2"], samples=5, output=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_atomically", killed_after)
        with pytest.raises(Killed):
            export_run(run, ["pt2"], samples=5, output=tmp_path, probabilities=True)
    assert read_json(tmp_path / "export.json")["formats"] == {}
    made = export_run(run, ["pt2"], samples=5, output=tmp_path, probabilities=True)
    assert [row.name for row in read_summary(tmp_path)] == ["network", "pt2"]
    assert made.files == (tmp_path / "student.pt2", tmp_path / "export.json")
