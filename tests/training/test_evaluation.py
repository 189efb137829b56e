"""Logits of a dataset: in the order of its samples, whatever the batch."""

from __future__ import annotations

import torch

from decant.pipeline.config.settings import Training
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import specify_network
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.training.evaluation import predict
from tests.helpers.small import CPU, recipe


def test_predictions_are_in_the_order_of_the_samples_whatever_the_batch() -> None:
    test = Splits.load(recipe().settings).test
    network = build_network(specify_network(Training(network={"name": "conv"}, epochs=1).network, test))
    whole = predict(network, test, CPU, batch_size=360)
    torch.testing.assert_close(predict(network, test, CPU, batch_size=7), whole, rtol=1e-4, atol=1e-5)
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(test[123][0][None])[0], whole[123], rtol=1e-4, atol=1e-5)
