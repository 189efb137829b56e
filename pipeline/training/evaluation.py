"""A network's logits on a dataset, and its metrics there."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from decant.pipeline.config.tasks import Metrics
from decant.pipeline.data.samples import task_of
from decant.pipeline.training.device import OnHost, autocast, to_device
from decant.pipeline.training.forward import forward
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.loading import OrderedKeys, default_workers, loader
from decant.pipeline.training.metrics import measure
from decant.pipeline.training.on_device import held_views
from decant.pipeline.views import ViewedData

_BEHIND = 2
"""Batches that a GPU computes before the outputs of the first are waited for."""


@torch.inference_mode()
def predict(
    network: nn.Module,
    data: ViewedData,
    device: torch.device,
    precision: str = "float32",
    batch_size: int = 512,
    group: Group = ALONE,
) -> Tensor:
    """(N, C) float32 logits of view 0 of every sample, in order, with the network in evaluation mode. Each of several
    ranks computes its samples, and gets the logits of all. A GPU that has room for the data keeps them, as one looks at
    them after each epoch.
    """
    network.eval()
    keys = OrderedKeys(len(data), batch_size, group=group)
    batches = loader(held_views(data, device), keys, default_workers(data.data.lazy))
    outputs, on_their_way = list[Tensor](), deque[OnHost]()
    with autocast(device, precision):
        for inputs, _ in batches:
            on_their_way.append(OnHost(forward(network, to_device(inputs, device)).float()))
            if len(on_their_way) > _BEHIND:
                outputs.append(on_their_way.popleft().wait().clone())  # page-locked memory is scarce
    outputs += [each.wait() for each in on_their_way]
    return group.gather([torch.cat(outputs)], len(data))[0]


def evaluate(
    network: nn.Module,
    data: ViewedData,
    device: torch.device,
    precision: str = "float32",
    teacher_logits: Tensor | None = None,
    group: Group = ALONE,
) -> Metrics:
    """The metrics of a network on view 0 of every sample; with the teacher's logits (N, C) agreement is one of them.
    Several ranks divide the samples, each counts once, and every rank gets the metrics that rank 0 takes of all:
    another processor may round otherwise, and ranks that choose an epoch by them must choose the same one.
    """
    logits = predict(network, data, device, precision, group=group)
    return group.of_first(
        lambda: measure(logits, torch.from_numpy(data.data.labels), teacher_logits, task_of(data.data))
    )
