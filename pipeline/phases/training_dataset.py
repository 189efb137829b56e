"""The dataset that distilled students are trained on: their data joined with the rows of a cache."""

from __future__ import annotations

import torch

from decant.cache import CheckInputs, LogitSource, SoftLabelDataset
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.plan import Plan
from decant.pipeline.training.loading import BatchedData
from decant.pipeline.training.on_device import DeviceData, fits_on_device


def training_dataset(
    plan: Plan, cache: LogitSource, check_inputs: CheckInputs, device: torch.device
) -> BatchedData:
    """The dataset that distilled students are trained on, of (input, label, teacher_logits): read from the file or a
    copy in memory, or held on the device as a whole, as `cache.table` says.

    Raises RecipeError if inputs that are read from files are to be held on the device.
    """
    student_train = plan.data.student_train
    dataset = SoftLabelDataset(
        student_train, cache, check_inputs=check_inputs, compare_labels=not student_train.mixes_labels
    )
    placement = plan.settings.cache.table
    if placement == "device" and not isinstance(student_train.data, ArrayData):
        raise RecipeError(
            'cache.table: "device" holds inputs that are one array in memory, and these are read from files; set '
            '"auto", "mapped" or "ram"'
        )
    if placement == "device" or (
        placement == "auto" and check_inputs != "all" and fits_on_device(dataset, device)
    ):
        return DeviceData(dataset, device)
    return dataset
