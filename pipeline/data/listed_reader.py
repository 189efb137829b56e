"""Image files of a folder that was listed before → their pixels; refused where they are no longer what was listed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.image_decode import decode
from decant.pipeline.data.input_arrays import alike
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

ListedFile = tuple[str, int, int]
"""A path, and as the folder was listed, the file's bytes and when it was last written to, in nanoseconds."""


@dataclass(frozen=True)
class ListedReader:
    """Decodes the files of a dataset. It holds no list of them, so other processes can have it."""

    dataset: str
    views: ViewsSettings
    shape: tuple[int, ...]
    """(C, H, W) of every image."""

    def images(self, files: Sequence[ListedFile]) -> NDArray[np.uint8]:
        """(B, C, H, W). Raises as `image` does."""
        return np.stack([self.image(Path(path), size, written) for path, size, written in files])

    def image(self, path: Path, size: int, written: int) -> NDArray[np.uint8]:
        """(C, H, W). Raises DataError where it is unlike others, or has other bytes than the folder was listed with; a
        file that was written to since is said once.
        """
        image = alike(decode(path, self.views), self._like, path)
        now = path.stat()
        if now.st_size != size:
            raise DataError(
                f"{path}: had {size:,} bytes when its folder was listed, and now has {now.st_size:,}; run the "
                "same command again"
            )
        if now.st_mtime_ns != written:
            say_once(
                f"warning: {path}: was written to since its folder was listed; where images change while they are "
                "used, a network may have seen both",
                about=f"changed images of {self.dataset}",
            )
        return image

    @cached_property
    def _like(self) -> NDArray[np.uint8]:
        return np.broadcast_to(np.uint8(0), self.shape)
