"""How a sample is displayed: as an image, as text or as numbers."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import Settings
from decant.pipeline.data.image_folder import image_files
from decant.pipeline.data.samples import vocabulary
from decant.pipeline.data.text import decoder
from decant.pipeline.views import ViewedData

MAX_SIDE = 96
"""Pixels; larger images are shown smaller."""
_LOSSLESS = 32 * 32  # pixels below which nothing is gained by losing any
_MAX_TEXT = 2_000
_MAX_NUMBERS = 64


@dataclass(frozen=True)
class Shown:
    """How the samples of a dataset are displayed."""

    viewed: ViewedData
    size: tuple[int, int] | None
    """(width, height) of a displayed image; None if the inputs are not images."""
    text_of: Callable[[list[int]], str] | None = None
    """Token ids → text; None if the inputs are not texts."""
    files: Sequence[Path] = field(default=())
    """The file of each sample, if samples are files."""

    @property
    def are_images(self) -> bool:
        return self.size is not None

    def sample(self, index: int, views: int) -> dict[str, str]:
        """`image`: a data URL with the first views side by side; or `text`; and `file`, if there is one."""
        record = {"file": self.file(index)} if self.files else {}
        keys = [(index, view) for view in range(views)]
        if self.size is not None:
            return {**record, "image": strip(self.viewed.batch(keys)[0].numpy(), self.size)}
        if self.text_of is not None:
            ids = self.viewed.batch(keys[:1])[0]["input_ids"][0].tolist()
            return {**record, "text": self.text_of(ids)[:_MAX_TEXT]}
        values = np.asarray(self.viewed.batch(keys[:1])[0][0]).ravel()
        more = "" if len(values) <= _MAX_NUMBERS else f" … ({len(values):,} numbers)"
        return {**record, "text": " ".join(f"{value:.4g}" for value in values[:_MAX_NUMBERS].tolist()) + more}

    def file(self, index: int) -> str:
        """The path of a sample's file as text, with replacement characters where it is not UTF-8; empty if it has
        none.
        """
        return os.fsencode(self.files[index]).decode("utf-8", "replace") if self.files else ""


def shown_of(viewed: ViewedData, settings: Settings) -> Shown:
    """How the samples of these data are displayed."""
    if vocabulary(viewed.data) is not None:
        return Shown(viewed, None, decoder(settings.data))
    whole = settings.data.name == "imagefolder" and settings.data.transfer is None
    files = image_files(settings.data, viewed.data.split) if whole else ()
    if len(viewed.input_shape) != 3 or viewed.batch([0])[0].numpy().dtype != np.uint8:
        return Shown(viewed, None)
    _, height, width = viewed.input_shape
    scale = min(1.0, MAX_SIDE / max(height, width))
    return Shown(viewed, (max(1, round(width * scale)), max(1, round(height * scale))), files=files)


def strip(images: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """Images (V, C, H, W) side by side, each (width, height), as a data URL of a WebP file: small ones lossless,
    larger ones at quality 90. Unless there are three channels, the first is shown in grey.
    """
    width, height = size
    side_by_side = Image.new("RGB", (width * len(images), height))
    for view, pixels in enumerate(images):
        colours = (
            pixels.transpose(1, 2, 0) if len(pixels) == 3 else np.repeat(pixels[0][..., None], 3, axis=2)
        )
        image = Image.fromarray(np.ascontiguousarray(colours))
        side_by_side.paste(image if image.size == size else image.resize(size), (view * width, 0))
    content = io.BytesIO()
    side_by_side.save(content, "WEBP", lossless=width * height < _LOSSLESS, quality=90, method=6)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
