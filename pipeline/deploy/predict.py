"""Classifies image files with the network of a finished run: `decant predict`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.data import load_data
from decant.pipeline.data.found_images import images_below
from decant.pipeline.data.image_decode import decode
from decant.pipeline.data.samples import ArrayData, LabelledData
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.runs.open import FinishedRun, class_names
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one file."""

    file: Path
    classes: tuple[tuple[str, float], ...]
    """(class, probability), the likeliest first; none where there is a problem."""
    problem: str | None = None
    """Why the file could not be read."""
    predicted: tuple[str, ...] | None = None
    """Of a multi-label network all classes from the threshold on; of a binary one the class that the threshold says.
    None where the likeliest class is predicted.
    """

    def as_json(self) -> dict[str, Any]:
        """The JSON of a prediction: the file with its classes, or with the problem."""
        if self.problem is not None:
            return {"file": str(self.file), "problem": self.problem}
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        said = {} if self.predicted is None else {"predicted": list(self.predicted)}
        return {"file": str(self.file), "classes": classes, **said}


@dataclass(frozen=True)
class Predictor:
    """A network, and how image files become its inputs."""

    network: nn.Module
    input_shape: tuple[int, ...]
    """(C, H, W)"""
    views: ViewsSettings
    """How a file becomes pixels: those of the run's test part."""
    classes: tuple[str, ...]
    names_missing: str | None
    """Why classes are numbers where the data's names could not be read."""
    sigmoids: Task | None = None
    """The task, where the outputs are logits of sigmoids."""
    threshold: float = 0.5
    """The probability from which such a class is predicted."""

    @classmethod
    def of(cls, run: FinishedRun, threshold: float | None = None) -> Predictor:
        """The predictor of a run. `threshold` is the probability from which a class is predicted where the outputs have
        sigmoids, 0.5 if None. Raises ModelError if the network is not a classifier of images, or has no sigmoids and
        so no threshold.
        """
        spec = run.result.network
        if run.recipe.settings.data.of_tokens:
            raise ModelError(
                f"{run.folder}: a language model, which classifies no images; `decant export` makes a folder of it, "
                "whose texts the transformers library generates"
            )
        if run.is_regression:
            raise ModelError(f"{run.folder}: a regression, which has no classes; see `decant evaluate`")
        if len(spec.input_shape) != 3 or spec.input_shape[0] not in (1, 3):
            raise ModelError(
                f"{run.folder}: its network takes inputs of shape {spec.input_shape}, which no image file has"
            )
        if threshold is not None and run.sigmoids is None:
            raise ModelError(
                f"{run.folder}: its classes share one softmax: the likeliest is predicted, no threshold"
            )
        classes, missing = _class_names(run)
        network, level = load_network(run.result).eval(), 0.5 if threshold is None else threshold
        return cls(network, spec.input_shape, _views(run), classes, missing, run.sigmoids, level)

    def predict(self, files: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
        """Yields the `top` most likely classes of each file, in order, and of the images in each folder and the folders
        in it; a file that cannot be read gets its problem instead.
        """
        for given in files:
            below, problems = _images(given)
            yield from (Prediction(given, (), problem) for problem in problems)
            for file in below:
                try:
                    every = self._likeliest(self.pixels(file), len(self.classes))
                    yield Prediction(file, every[:top], predicted=self._predicted(every))
                except DataError as error:
                    yield Prediction(file, (), str(error))

    def pixels(self, file: Path) -> NDArray[np.uint8]:
        """(C, H, W) uint8 of a file, resized as the run's own data. Raises DataError, naming the file."""
        pixels = decode(file, self.views)
        if self.input_shape[0] == 1 and len(pixels) == 3:
            grey = Image.fromarray(pixels.transpose(1, 2, 0)).convert("L")
            pixels = np.asarray(grey)[None]
        one = ArrayData("images", "test", pixels[None], np.zeros(1, np.int64), ())
        viewed = ViewedData(one, self.views).batch([0])[0][0].numpy()
        if viewed.shape != self.input_shape:
            (_, height, width), (_, found_height, found_width) = self.input_shape, viewed.shape
            raise DataError(
                f"{file}: {found_height} × {found_width} pixels, where the network takes {height} × {width}, and "
                "the run's recipe has no views.size to bring them to"
            )
        return viewed

    def _predicted(self, every: tuple[tuple[str, float], ...]) -> tuple[str, ...] | None:
        """What the threshold says of all classes; None where there is none."""
        if self.sigmoids is None:
            return None
        if self.sigmoids == "multilabel":
            return tuple(name for name, probability in every if probability >= self.threshold)
        negative, positive = self.classes
        return (positive,) if dict(every)[positive] >= self.threshold else (negative,)

    @torch.inference_mode()
    def _likeliest(self, pixels: NDArray[np.uint8], top: int) -> tuple[tuple[str, float], ...]:
        probabilities = self._probabilities(self.network(torch.from_numpy(pixels[None])).float())[0]
        best = probabilities.topk(min(top, len(probabilities)))
        top_classes = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple((self.classes[label], probability) for label, probability in top_classes)

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) probabilities: of one logit those of both classes."""
        if self.sigmoids == "binary":
            return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)
        return logits.softmax(1) if self.sigmoids is None else logits.sigmoid()


def _images(given: Path) -> tuple[list[Path], list[str]]:
    """The images below a folder, of which those that are left out are said, and a message for each of what cannot be
    read; any other path itself.
    """
    if not os.path.lexists(given):
        return [], [f"{given}: no such file"]
    if not given.is_dir():
        return [given], []
    found = images_below(given)
    found.say_left_out(given)
    without = [] if found.images or found.unreadable else [f"{given}: a folder without images"]
    return found.images, [*found.unreadable, *without]


def _views(run: FinishedRun) -> ViewsSettings:
    """The views settings of the run's test part. If its images were not resized, all had the network's size; other
    images are then brought to it.
    """
    views = run.recipe.settings.views.plain
    _, height, width = run.result.network.input_shape
    if views.size is None and not views.augment:
        return views.model_copy(update={"size": height if height == width else (height, width)})
    return views


def _class_names(run: FinishedRun) -> tuple[tuple[str, ...], str | None]:
    """The names of the classes, from the run's result, or for an older run from the test part of its data; numbers,
    and the reason, if neither can be read. Raises ModelError if the inputs are not uint8 images.
    """
    if run.result.classes is not None:
        _check_pixels(run, run.result.input_dtype)
        return tuple(run.result.classes), None
    settings, count = run.recipe.settings, 2 if run.sigmoids == "binary" else run.result.network.num_classes
    try:
        data = load_data(settings.data.model_copy(update={"pack": "never"}), settings.views, "test")
        first: Any = data.raw(np.zeros(1, np.int64))
    except DataError as error:
        return class_names((), count), f"classes are shown by number: {error}"
    _check_pixels(run, str(first.dtype))
    return class_names(_fitting(data, count), count), None


def _check_pixels(run: FinishedRun, dtype: str | None) -> None:
    if dtype != "uint8":
        raise ModelError(f"{run.folder}: learnt from {dtype} arrays, which no image file has")


def _fitting(data: LabelledData, count: int) -> tuple[str, ...]:
    return data.classes if len(data.classes) == count else ()
