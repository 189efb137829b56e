"""A network in evaluation mode that is not steady is doubted, and one that rounds is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from decant.pipeline.training.steadiness import doubt_of_outputs

torch.manual_seed(0)
INPUTS, LAYER, NORM = torch.randn(32, 8), nn.Linear(8, 5), nn.BatchNorm1d(8)
NORM(INPUTS)
EACH_TIME, BATCH = (
    "its outputs for the same batch are others each time",
    "its outputs for a sample depend on the others",
)


def test_a_steady_network_is_called_twice_and_the_second_time_for_few() -> None:
    sizes = list[int]()
    assert doubt_of_outputs(lambda x: (sizes.append(len(x)), LAYER(x))[1], INPUTS) is None
    assert sizes == [32, 8]


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda x: LAYER(functional.dropout(x, 0.1)), EACH_TIME),
        (lambda x: LAYER(x) + 0.2 * torch.randn(len(x), 5), EACH_TIME),
        (lambda x: LAYER(NORM.train()(x)), BATCH),
        (lambda x: LAYER(x) / LAYER(x).std(), BATCH),
        (lambda x: LAYER(NORM.eval()(x)), None),
        (lambda x: LAYER(x).bfloat16() * (1 + 2**-8 * (len(x) > 2)), None),
        (lambda x: LAYER(x) * (1 + 0.2 * (len(x) > 8)), None),  # rounding of an untrained network, on a GPU
        (lambda x: torch.ones(len(x), 5), None),
        (lambda x: LAYER(functional.dropout(x, 0.1, training=False)), None),
    ],
)
def test_what_is_not_steady_is_said(network: Callable[[Tensor], Tensor], says: str | None) -> None:
    with torch.no_grad():
        doubt = doubt_of_outputs(network, INPUTS)
        assert doubt_of_outputs(lambda named: network(named["x"]), {"x": INPUTS}) == doubt
    assert (doubt or "").startswith(says or ""), doubt
    assert (doubt is None) == (says is None), doubt
