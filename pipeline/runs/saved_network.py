"""The network of a run: saved with everything that builds it again, and loaded."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import nn

from decant.cache.io.bus_errors import naming
from decant.cache.io.redaction import without_secrets
from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.registry import weights_size_of
from decant.pipeline.networks.spec import CAUSAL, KEPT_CLASSES, NetworkSpec
from decant.pipeline.networks.weights import load_weights, save_weights, weights_sha256
from decant.pipeline.runs.result import RESULT, WEIGHTS, Result
from decant.pipeline.support import trust


def save_network(folder: Path, network: nn.Module, spec: NetworkSpec) -> tuple[int, str]:
    """Writes `weights.safetensors`, with the spec in its header; returns its size in bytes and the SHA-256 of the
    weights.
    """
    path = folder / WEIGHTS
    save_weights(path, network, {"network": json.dumps(without_secrets(asdict(spec)))})
    return path.stat().st_size, weights_sha256(network.state_dict())


def load_network(result: Result) -> nn.Module:
    """The network of a finished run with its trained weights. Raises WeightsError if the file is missing, does not hold
    the weights that `result.json` names, or if the code of a network of the user's own is not what it was, unless
    `--trust` was given.
    """
    if result.has_other_code and not trust.trusts_everything():
        raise WeightsError(
            f"{result.folder}: the code of its network {result.network.name!r} has changed since it was trained, and "
            f"old weights in new code are another network; put the code back, or train it again; {trust.TRUST} runs it "
            "as it is"
        )
    path = result.folder / WEIGHTS
    _require_as_large(result, path)
    network = build_network(result.network, fetch=False, drawn=False)
    with naming(path):
        load_weights(network, path)
    if weights_sha256(network.state_dict()) != result.weights_sha256:
        raise WeightsError(f"{path}: not the weights that {result.folder / RESULT} speaks of")
    return network


def _require_as_large(result: Result, path: Path) -> None:
    """Raises WeightsError where the file is smaller than the weights of the network that `result.json` speaks of, which
    would otherwise take their memory first.
    """
    spec = result.network
    if CAUSAL in spec.args:
        return  # its file is checked against the network, which is refused where memory does not suffice
    args = {name: value for name, value in spec.args.items() if name != KEPT_CLASSES}
    needed = weights_size_of(spec.name, spec.own_outputs, spec.input_shape, args)
    if needed is not None and path.is_file() and path.stat().st_size < needed:
        raise WeightsError(
            f"{path}: {path.stat().st_size:,} bytes, and the network that {result.folder / RESULT} speaks of, "
            f"{result.network}, has weights of {needed:,}"
        )
