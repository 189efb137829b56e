"""Exports a finished run: makes the files, runs and compares each with the network, then publishes them in
RUN/export, or in a folder that is given.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from decant.cache.io.files import write_atomically
from decant.cache.io.opening import require_folder
from decant.pipeline.data.samples import has_labels, spread
from decant.pipeline.deploy import runtimes
from decant.pipeline.deploy.check import Checked, Samples, check
from decant.pipeline.deploy.deployable import OPSET, Deployable, Description, describe, trace
from decant.pipeline.deploy.formats import reason, to_onnx, to_pt2
from decant.pipeline.deploy.quantisation import calibration_inputs, quantise
from decant.pipeline.errors import DamagedError, ModelError
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.runs.json_files import read_as, read_json, write_json
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.open import FinishedRun, other_classes
from decant.pipeline.runs.result import WEIGHTS
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.checked_json import FROM_TABLE
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.plugins import optional

FORMATS = ("pt2", "onnx", "int8")
SUMMARY = "export.json"
_FILES = {"pt2": "student.pt2", "onnx": "student.onnx", "int8": "student.int8.onnx"}
_ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    rows: tuple[Checked, ...]
    """The network in PyTorch, then each file."""
    files: tuple[Path, ...]
    """The published files; none if there are problems."""
    problems: tuple[str, ...]
    """One message for each file whose outputs differ from the network's by more than its bound."""
    left_out: str | None
    """Why formats of the default were not made; None if all were."""
    missing: tuple[str, ...] = ()
    """One message for each format that the network cannot be written in, or that its runtime cannot run."""


@dataclass(frozen=True)
class _Summary:
    """What is read of `export.json`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

    student: Annotated[Checked, FROM_TABLE]
    formats: dict[Literal["pt2", "onnx", "int8"], Annotated[Checked, FROM_TABLE]]


_SUMMARY = TypeAdapter(Annotated[_Summary, FROM_TABLE])


def export_run(
    run: FinishedRun,
    formats: Sequence[str] | None = None,
    *,
    probabilities: bool = False,
    calibration: int = 512,
    samples: int = 1000,
    max_loss: float = 2.0,
    output: Path | None = None,
) -> Exported:
    """Exports a run to the files of `formats`, each checked on at most `samples` samples of the test part; None
    exports to every format whose libraries are installed.

    Publishes all files and `export.json` in `output`, by default RUN/export, or none if one differs too much. A format
    that the network cannot be written in is missing, the others are made. Raises ModelError if it cannot be written in
    any, if the libraries of a requested format are missing, or if `output` has files of such names that are not of this
    network.
    """
    if formats is not None and not set(formats) <= set(FORMATS):
        raise ModelError(
            f"--formats transformers: is of language models, and {run.folder} is none; take {', '.join(FORMATS)}"
        )
    require_folder(run.folder / "export")
    folder = run.folder / "export" if output is None else output
    if output is not None:
        _require_own(output, run.result.weights_sha256)
    formats, left_out = _possible(formats)
    splits = Splits.load(run.recipe.settings)
    deployable = Deployable(load_network(run.result), probabilities, run.sigmoids is not None)
    inputs, labels = _test_samples(run, splits, samples)
    classes = tuple(run.result.classes or splits.student_train.data.classes)
    description = describe(run, inputs[:1], classes, probabilities)
    with runtimes.one_thread(), runtimes.quiet():
        run_network = runtimes.in_pytorch(deployable)
        expected = np.concatenate([run_network(batch.numpy()) for batch in inputs.split(64)])
        boundary = 0.5 if probabilities and run.sigmoids is not None else 0.0
        if not has_labels(splits.test.data) or _has_other_classes(run, splits):
            labels = _own_answers(run, expected, boundary)
        tried = Samples(inputs.numpy(), labels, expected, run.sigmoids, boundary)
        size = (run.folder / WEIGHTS).stat().st_size
        rows = [check("network", f"PyTorch {torch.__version__}", size, run_network, tried)]
        contents, missing = _make(formats, run, deployable, splits, description, calibration)
        rows += _run_each(contents, missing, tried)
    if not contents:
        raise ModelError(f"{run.folder}: {'; '.join(_listed(missing))}")
    problems = [
        row.loss_problem(rows[0], max_loss) if row.name == "int8" else row.difference_problem()
        for row in rows[1:]
    ]
    failures = tuple(problem for problem in problems if problem is not None)
    files: tuple[Path, ...] = ()
    if not failures:
        # Beside a folder that is given nothing is written.
        lock = folder if output is None else output / "export"
        with alone_with(lock):  # another process may add its formats to the summary
            if output is not None:  # others may have written there since
                _require_own(output, run.result.weights_sha256)
            files = _publish(folder, contents, rows, description)
    return Exported(tuple(rows), files, failures, left_out, _listed(missing))


def _require_own(folder: Path, weights_sha256: str) -> None:
    """Raises ModelError where a folder that a user gave has files that an export of this network would replace, and
    that are not of such an export.
    """
    names = [name for name in (*_FILES.values(), SUMMARY) if (folder / name).exists()]
    metadata = None
    with contextlib.suppress(DamagedError):  # of another program, perhaps
        metadata = read_json(folder / SUMMARY).get("metadata") if read_summary(folder) else None
    if names and not (isinstance(metadata, dict) and metadata.get("weights_sha256") == weights_sha256):
        raise ModelError(
            f"{folder / names[0]}: is there already, and not of an export of this network; give another --output"
        )


def _run_each(contents: dict[str, bytes], missing: dict[str, str], tried: Samples) -> list[Checked]:
    """Each file in its own runtime; one that cannot be run there goes from `contents` to what is `missing`."""
    rows = []
    for name in list(contents):
        try:
            runtime = _load(name, contents[name])
            rows.append(check(name, _runtime_name(name), len(contents[name]), runtime, tried))
        except Exception as error:  # a runtime raises errors of its own
            missing[name] = f"{_runtime_name(name)} cannot run it ({reason(error)})"
            del contents[name]
    return rows


def read_summary(folder: Path) -> list[Checked]:
    """Reads the `export.json` of a folder: the network, then each file; empty if there is none. Raises DamagedError."""
    path = folder / SUMMARY
    if not path.is_file():
        return []
    found = read_as(
        path, _SUMMARY, "it is not what decant export writes: delete it and run decant export again"
    )
    return [found.student, *found.formats.values()]


def _possible(formats: Sequence[str] | None) -> tuple[tuple[str, ...], str | None]:
    """The formats to make, and why formats of the default are left out."""
    requested = FORMATS if formats is None else tuple(formats)
    if not set(requested) & {"onnx", "int8"}:
        return requested, None
    try:
        for module in _ONNX_MODULES:
            optional(module, "export", ModelError)
    except ModelError as error:
        if formats is not None:
            raise
        return ("pt2",), f"onnx and int8 are left out: {error}"
    return requested, None


def _test_samples(run: FinishedRun, splits: Splits, count: int) -> tuple[torch.Tensor, NDArray[Any]]:
    """Inputs and labels of test samples at even distances. Raises ModelError if they are not arrays of one shape, or
    not of the shape that the network takes.
    """
    indices = spread(len(splits.test), count)
    inputs, labels = splits.test.batch(np.stack([indices, np.zeros_like(indices)], axis=1))
    if not isinstance(inputs, torch.Tensor):
        raise ModelError(f"{run.folder}: learnt from texts; images and feature vectors can be exported")
    if tuple(inputs.shape[1:]) != run.result.network.input_shape:
        raise ModelError(
            f"{run.folder}: the data now have inputs of shape {tuple(inputs.shape[1:])}, the network takes "
            f"{run.result.network.input_shape}"
        )
    return inputs, labels.numpy()


def _has_other_classes(run: FinishedRun, splits: Splits) -> bool:
    """Whether the data have other classes by now, or in another order, which is said on stderr."""
    others = other_classes(run.result, splits.test.data.classes)
    if others is not None:
        say_once(
            f"warning: {run.folder}: {others}: accuracies are agreements with the network, as without labels"
        )
    return others is not None


def _own_answers(run: FinishedRun, expected: NDArray[np.float32], boundary: float) -> NDArray[Any]:
    """The network's own predictions, which stand for labels where there are none of its classes."""
    if run.sigmoids is not None:
        return (expected > boundary).astype(np.float32)
    return expected if run.is_regression else expected.argmax(axis=1)


def _make(
    formats: Sequence[str],
    run: FinishedRun,
    deployable: Deployable,
    splits: Splits,
    description: Description,
    calibration: int,
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The content of each file, by format, and why others could not be made."""
    two, _ = splits.test.batch([0, 0])  # a batch of one would be taken for a batch that is always one
    made, missing = dict[str, bytes](), dict[str, str]()
    try:
        program = trace(deployable, two)
    except ModelError as error:
        raise ModelError(f"{run.folder}: {error}") from error
    if "pt2" in formats:
        _try("pt2", lambda: to_pt2(program, description), made, missing)
    if set(formats) & {"onnx", "int8"}:
        _try("onnx", lambda: to_onnx(program, description), made, missing)
    if "int8" in formats and "onnx" in made:
        inputs = calibration_inputs(splits.student_train, calibration)
        _try("int8", lambda: quantise(made["onnx"], inputs, description), made, missing)
    elif "int8" in formats:
        missing["int8"] = "it is made from the ONNX file"
    return {name: made[name] for name in formats if name in made}, missing


def _try(name: str, make: Callable[[], bytes], made: dict[str, bytes], missing: dict[str, str]) -> None:
    """Adds a file to `made`, or to `missing` why it cannot be."""
    try:
        made[name] = make()
    except ModelError as error:
        missing[name] = str(error)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what writes the file raises errors of its own
        missing[name] = reason(error)


def _listed(missing: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name} cannot be made: {why}" for name, why in missing.items())


def _load(name: str, content: bytes) -> runtimes.Runtime:
    return runtimes.in_torch_export(content) if name == "pt2" else runtimes.in_onnxruntime(content)


def _runtime_name(name: str) -> str:
    if name == "pt2":
        return f"torch.export, PyTorch {torch.__version__}"
    version = optional("onnxruntime", "export", ModelError).__version__
    return f"onnxruntime {version}, opset {OPSET}"


def _publish(
    folder: Path, contents: dict[str, bytes], rows: Sequence[Checked], description: Description
) -> tuple[Path, ...]:
    """Writes the files, and `export.json` before them and after: first without the formats that are replaced, so that a
    process that is killed leaves no file that is not of an export, and none that is described as another. It keeps its
    entries for other formats.
    """
    summary, files = folder / SUMMARY, list[Path]()
    before = read_json(summary)["formats"] if read_summary(folder) else {}
    said = {
        name: entry
        for name, entry in before.items()
        if name not in contents and (folder / _FILES[name]).is_file()
    }
    network = {"network": description.network, **_entry(rows[0])}

    def write_summary() -> None:
        ordered = {name: said[name] for name in FORMATS if name in said}
        write_json(summary, {"student": network, "formats": ordered, "metadata": description.metadata()})

    write_summary()
    for row in rows[1:]:
        content, path = contents[row.name], folder / _FILES[row.name]
        write_atomically(path, content)
        files.append(path)
        said[row.name] = {
            "file": path.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "output": description.output_name,
            **_entry(row),
        }
    write_summary()
    return (*files, summary)


def _entry(row: Checked) -> dict[str, Any]:
    threads = "1 thread" if runtimes.THREADS == 1 else f"{runtimes.THREADS} threads"
    return {**asdict(row), "latency_on": f"{device_name(torch.device('cpu'))}, {threads}, batch 1"}
