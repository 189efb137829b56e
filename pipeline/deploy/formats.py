"""Writes a network as the bytes of a torch.export file and of an ONNX file."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import torch

from decant.pipeline.deploy.deployable import ANY_BATCH, OPSET, Description
from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional

METADATA = "decant.json"
"""The name of the description inside a .pt2 file."""


def to_pt2(program: torch.export.ExportedProgram, description: Description) -> bytes:
    """The bytes of a .pt2 file, to be loaded by `torch.export.load(file).module()`."""
    file = io.BytesIO()
    extra = {METADATA: json.dumps(description.metadata(), ensure_ascii=False)}
    torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def to_onnx(program: torch.export.ExportedProgram, description: Description) -> bytes:
    """The bytes of an .onnx file of operator set OPSET for any batch size, with the description as its metadata.

    Raises ModelError if the exporter is not installed, or has no operator for a part of the network.
    """
    for module in ("onnx", "onnxscript"):
        optional(module, "export", ModelError)
    try:
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[description.input_name],
            output_names=[description.output_name],
            dynamic_shapes=ANY_BATCH,  # of the program already; for the dimension's name
            verbose=False,
        )
    except Exception as error:  # the exporter's own errors, and those of what it calls
        raise ModelError(f"torch.onnx cannot write this network ({reason(error)})") from error
    assert exported is not None  # as no file was named
    model = exported.model_proto
    _strip(model.graph)
    add_metadata(model, description.metadata())
    content: bytes = model.SerializeToString()
    return content


def reason(error: BaseException) -> str:
    """Why an exporter or a runtime failed: what the first of a chain of errors says, in one line without colours.

    >>> cause = ValueError("No ONNX function found for aten.adaptive_max_pool2d\\nSee above")
    >>> error = RuntimeError("Failed to convert the program. Next steps: …")
    >>> error.__cause__ = cause
    >>> reason(error)
    'ValueError: No ONNX function found for aten.adaptive_max_pool2d'
    """
    while error.__cause__ is not None:
        error = error.__cause__
    first = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}".removesuffix(": ")


def add_metadata(model: Any, metadata: dict[str, str]) -> None:
    """Replaces the metadata of an ONNX model, which a session returns as `get_modelmeta().custom_metadata_map`."""
    del model.metadata_props[:]
    for key, value in {**metadata, "opset": str(OPSET)}.items():
        model.metadata_props.add(key=key, value=value)


def _strip(graph: Any) -> None:
    """Removes what the exporter records of each node: lines of code and paths of this machine."""
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
