"""A network with its preprocessing, ready for export, and the description that the exported file carries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from decant.cache.io.redaction import redacted
from decant.pipeline.config.tasks import Task
from decant.pipeline.errors import ModelError
from decant.pipeline.runs.json_files import escaped_json
from decant.pipeline.runs.open import FinishedRun, class_names
from decant.pipeline.support.terminal import one_line

OPSET = 18
"""The ONNX operator set: the native one of PyTorch's exporter, supported by onnxruntime since 1.14."""

ANY_BATCH = ({0: torch.export.Dim("batch")},)
"""The dynamic shapes of the one input: any batch size."""


class Deployable(nn.Module):
    """(B, C, H, W) uint8 or (B, F) float32 → float32 logits (B, num_classes), or their softmax, or the sigmoid of
    each, or the outputs (B, T) of a regression.
    """

    def __init__(self, network: nn.Module, probabilities: bool = False, sigmoids: bool = False) -> None:
        super().__init__()
        self.network = network
        self.probabilities = probabilities
        self.sigmoids = sigmoids
        self.eval().requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(inputs).float()
        if not self.probabilities:
            return outputs
        return outputs.sigmoid() if self.sigmoids else outputs.softmax(1)


@dataclass(frozen=True)
class Description:
    """The description that an exported file carries."""

    network: str
    weights_sha256: str
    input_name: str
    """`images` or `features`."""
    input_shape: tuple[int, ...]
    """(C, H, W) or (F,), without the batch."""
    input_dtype: str
    output_name: str
    """`logits`, `probabilities`, or the `outputs` of a regression."""
    classes: tuple[str, ...]
    """The class names by class number; empty for a regression. Of a binary network both, whose one output is of the
    second.
    """
    sigmoids: Task | None = None
    """The task, where each output has a sigmoid of its own: binary or multi-label."""

    def metadata(self) -> dict[str, str]:
        """The description as texts by name; lists and tables are JSON."""
        images = len(self.input_shape) == 3
        input_said: dict[str, Any] = {
            "name": self.input_name,
            "shape": ["batch", *self.input_shape],
            "dtype": self.input_dtype,
        }
        if images:
            input_said["layout"] = "NCHW"
        if self.input_dtype == "uint8":
            input_said["range"] = [0, 255]
        if images and self.input_shape[0] in (1, 3):
            input_said["colours"] = "grey" if self.input_shape[0] == 1 else "RGB"
        output_said = {"name": self.output_name, "dtype": "float32"}
        if self.sigmoids is not None:
            output_said["task"] = self.sigmoids
            if self.output_name == "logits":
                output_said["activation"] = "sigmoid"  # which turns them into probabilities
        return {
            "network": one_line(redacted(self.network)),
            "weights_sha256": self.weights_sha256,
            "input": _json(input_said),
            "output": _json(output_said),
            "classes": _json(list(self.classes)),
            "preprocessing": "inside: give what `input` says, neither scaled nor normalised",
        }


def describe(run: FinishedRun, example: Tensor, classes: tuple[str, ...], probabilities: bool) -> Description:
    """The description of a run's files; `example` is a batch of its inputs. Raises ModelError if probabilities are
    requested of a regression.
    """
    result = run.result
    if run.is_regression and probabilities:
        raise ModelError(f"{run.folder}: a regression, whose outputs have no probabilities")
    count = 2 if run.sigmoids == "binary" else result.network.num_classes
    output = "outputs" if run.is_regression else "probabilities" if probabilities else "logits"
    return Description(
        network=str(result.network),
        weights_sha256=result.weights_sha256,
        input_name="images" if example.ndim == 4 else "features",
        input_shape=tuple(example.shape[1:]),
        input_dtype=str(example.dtype).removeprefix("torch."),
        output_name=output,
        classes=() if run.is_regression else class_names(classes, count),
        sigmoids=run.sigmoids,
    )


def trace(deployable: Deployable, example: Tensor) -> torch.export.ExportedProgram:
    """The `torch.export` program of any batch size. Raises ModelError if the network cannot be traced."""
    try:
        program = torch.export.export(deployable, (example,), dynamic_shapes=ANY_BATCH)
    except Exception as error:  # tracing runs the network's own code: anything can come of it
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]
        raise ModelError(f"torch.export cannot trace this network for any batch size ({said})") from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the files of this machine
    return program


def _json(content: Any) -> str:
    return escaped_json(json.dumps(content, ensure_ascii=False))
