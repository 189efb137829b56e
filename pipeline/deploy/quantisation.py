"""Quantises an ONNX model to int8: weights by channel, activations by their range on training views.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
section 2.1. The model keeps float operators between QuantizeLinear and DequantizeLinear nodes, which a runtime fuses.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.data.samples import spread
from decant.pipeline.deploy.deployable import Description
from decant.pipeline.deploy.formats import add_metadata
from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional
from decant.pipeline.views import ViewedData

_BATCH = 32
_WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
_IN_FLOAT = ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "Softmax")
"""Operators whose few weights have another range in every channel, or whose outputs are probabilities."""


def calibration_inputs(train: ViewedData, count: int) -> NDArray[Any]:
    """(K, …): at most `count` training samples at even distances, the k-th through view k mod V."""
    indices = spread(len(train), count)
    views = np.arange(len(indices)) % train.settings.num_views
    inputs, _ = train.batch(np.stack([indices, views], axis=1))
    return inputs.numpy()


def quantise(content: bytes, inputs: NDArray[Any], description: Description) -> bytes:
    """Quantises the ONNX model `content` to int8; `inputs` determine the ranges of its activations.

    Operators before the first layer with weights, and so the preprocessing, stay in float, as do softmax and
    normalisation operators that are not fused into another layer.
    """
    optional("onnxruntime", "export", ModelError)
    onnx = optional("onnx", "export", ModelError)
    quantization = optional("onnxruntime.quantization", "export", ModelError)
    shapes = optional("onnxruntime.quantization.shape_inference", "export", ModelError)
    with tempfile.TemporaryDirectory(prefix="decant-") as name:
        given, shaped, made = (Path(name) / part for part in ("given.onnx", "shaped.onnx", "made.onnx"))
        given.write_bytes(content)
        shapes.quant_pre_process(given, shaped, skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_static(
            shaped,
            made,
            _Batches(inputs, description.input_name),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_left_alone(onnx.load(shaped).graph, description.input_name),
        )
        model = onnx.load(made)
    quantised = f"int8, weights by channel, activations by {len(inputs):,} training views"
    add_metadata(model, {**description.metadata(), "quantisation": quantised})
    result: bytes = model.SerializeToString()
    return result


def _left_alone(graph: Any, input_name: str) -> list[str]:
    """Names of the nodes that stay in float: those from the input to the first layers with weights, and those of
    _IN_FLOAT.
    """
    reached, names = {input_name}, []
    for node in graph.node:  # in the order in which they run
        if reached & set(node.input) and node.op_type not in _WITH_WEIGHTS:
            reached |= set(node.output)
            names.append(node.name)
    return [*names, *(node.name for node in graph.node if node.op_type in _IN_FLOAT)]


class _Batches:
    """Calibration inputs as onnxruntime reads them: {name: batch}, then None."""

    def __init__(self, inputs: NDArray[Any], name: str) -> None:
        self._batches: Iterator[dict[str, NDArray[Any]]] = (
            {name: inputs[start : start + _BATCH]} for start in range(0, len(inputs), _BATCH)
        )

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch; None after the last."""
        return next(self._batches, None)
