"""Classifies image files with the network of a finished run: `decant predict`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data import load_data
from decant.pipeline.data.image_decode import decode
from decant.pipeline.data.image_files import images_below
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

    def as_json(self) -> dict[str, Any]:
        """The JSON of a prediction: the file with its classes, or with the problem."""
        if self.problem is not None:
            return {"file": str(self.file), "problem": self.problem}
        classes = [{"class": name, "probability": share} for name, share in self.classes]
        return {"file": str(self.file), "classes": classes}


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

    @classmethod
    def of(cls, run: FinishedRun) -> Predictor:
        """The predictor of a run. Raises ModelError if its network is not a classifier of images."""
        spec = run.result.network
        if run.is_regression:
            raise ModelError(f"{run.folder}: a regression, which has no classes; see `decant evaluate`")
        if len(spec.input_shape) != 3 or spec.input_shape[0] not in (1, 3):
            raise ModelError(
                f"{run.folder}: its network takes inputs of shape {spec.input_shape}, which no image file has"
            )
        classes, missing = _class_names(run)
        network = load_network(run.result).eval()
        return cls(network, spec.input_shape, _views(run), classes, missing)

    def predict(self, files: Sequence[Path], top: int = 5) -> Iterator[Prediction]:
        """Yields the `top` most likely classes of each file, in order, and of the images in each folder and the folders
        in it; a file that cannot be read gets its problem instead.
        """
        for given in files:
            try:
                below = _images(given)
            except DataError as error:
                yield Prediction(given, (), str(error))
                continue
            for file in below:
                try:
                    yield Prediction(file, self._likeliest(self.pixels(file), top))
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

    @torch.inference_mode()
    def _likeliest(self, pixels: NDArray[np.uint8], top: int) -> tuple[tuple[str, float], ...]:
        probabilities = self.network(torch.from_numpy(pixels[None])).float().softmax(1)[0]
        best = probabilities.topk(min(top, len(probabilities)))
        top_classes = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple((self.classes[label], probability) for label, probability in top_classes)


def _images(given: Path) -> list[Path]:
    """The images below a folder, of which those that are left out are said; any other path itself. Raises DataError
    where a folder has none.
    """
    if not given.is_dir():
        return [given]
    found = images_below(given)
    found.say_left_out(given)
    if not found.images:
        raise DataError(f"{given}: a folder without images")
    return found.images


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
    settings, count = run.recipe.settings, run.result.network.num_classes
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
