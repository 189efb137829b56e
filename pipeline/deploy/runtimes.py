"""Runs each kind of file in its own runtime, on one CPU thread."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional

Runtime = Callable[[NDArray[Any]], NDArray[np.float32]]
"""(B, …) inputs → (B, C) outputs."""

THREADS = 1


def in_pytorch(module: nn.Module) -> Runtime:
    """Runs a module in PyTorch."""

    def run(inputs: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            outputs: NDArray[np.float32] = module(torch.from_numpy(inputs)).numpy()
        return outputs

    return run


def in_torch_export(content: bytes) -> Runtime:
    """Loads a .pt2 file."""
    return in_pytorch(torch.export.load(io.BytesIO(content)).module())


def in_onnxruntime(content: bytes) -> Runtime:
    """Opens an .onnx file in an onnxruntime session on the CPU. Raises ModelError if onnxruntime is not installed."""
    onnxruntime = optional("onnxruntime", "export", ModelError)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: NDArray[Any]) -> NDArray[np.float32]:
        outputs: NDArray[np.float32] = session.run(None, {name: inputs})[0]
        return outputs

    return run


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limits PyTorch to as many threads as the onnxruntime sessions have."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what torch and its exporters warn of, which is about themselves: each file is run and compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
