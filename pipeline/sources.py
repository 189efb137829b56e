"""Where data come from: each function brings one kind of source to `LabelledData`."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data import NO_LABEL, ArrayData, LabelledData, Split
from pipeline.errors import DataError
from pipeline.progress import track
from pipeline.settings import DataSettings, ViewsSettings

TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif"}
MAX_ARRAY_BYTES = 4 << 30  # a part that is larger than this is decoded by workers as it is needed
_DIGITS_TEST = 360  # of 1,797


def digits(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's digits: 1,797 images of 8 × 8, 16 grey levels; a fixed stratified fifth is the test
    part.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    chosen = np.sort(train if split == "train" else test)
    images = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target[chosen].astype(np.int64)
    return ArrayData("digits", split, _resized(images, views), labels, tuple("0123456789"))


def from_torchvision(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """One of torchvision's small sets, downloaded to `root` when it is not there."""
    import torchvision.datasets

    factory = getattr(torchvision.datasets, TORCHVISION[settings.name])
    part = {"split": split} if settings.name == "svhn" else {"train": split == "train"}
    try:
        dataset = factory(settings.root, download=True, **part)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{settings.name}: not in {settings.root!r} and could not be downloaded ({error}); "
            "set data.root to where it is, or try again with a network"
        ) from None
    images = np.asarray(dataset.data)
    if settings.name != "svhn":  # (N, H, W, C), or (N, H, W) where grey
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.asarray(dataset.labels if settings.name == "svhn" else dataset.targets, dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or map(str, range(10)))
    return ArrayData(settings.name, split, _resized(np.ascontiguousarray(images), views), labels, classes)


def image_folder(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """A user's own `root/train/CLASS/*` and `root/test` or `root/val`; files in the order of their names.

    The digest covers relative paths, sizes and labels; the CRC-32 of each input, which the cache holds,
    covers the pixels.
    """
    folder = _part_folder(Path(settings.root), split)
    classes = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir()))
    found = [(path, label) for label, name in enumerate(classes) for path in _images(folder / name)]
    if not found:
        raise DataError(f"{folder}: no images in class folders (CLASS/NAME.jpg and the like)")
    paths = [path for path, _ in found]
    labels = np.array([label for _, label in found], dtype=np.int64)
    digest = hashlib.sha256()
    for path, label in found:
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0{label}\n".encode())
    files = FileData("imagefolder", split, paths, labels, classes, digest.hexdigest(), views)
    return _held(files) if len(files) * int(np.prod(files.input_shape)) <= MAX_ARRAY_BYTES else files


@dataclass
class FileData:
    """Image files, decoded as they are asked for."""

    name: str
    split: Split
    paths: Sequence[Path]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    content: str
    views: ViewsSettings

    lazy = True

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def input_shape(self) -> tuple[int, ...]:
        if self.views.size:
            return (3, self.views.size, self.views.size)
        return decode(self.paths[0], self.views).shape

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        return stacked(
            [decode(self.paths[index], self.views) for index in indices.tolist()], self.paths, indices
        )

    def digest(self) -> str:
        return self.content


def decode(path: Path, views: ViewsSettings) -> NDArray[np.uint8]:
    """(3, H, W) uint8 of an image file. Raises DataError, naming the file, where it cannot be read."""
    try:
        with Image.open(path) as image:
            return _to_array(fit(image.convert("RGB"), views))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from None


def fit(image: Image.Image, views: ViewsSettings) -> Image.Image:
    """The shorter side scaled to `views.resize`, then the `views.size` square in the middle."""
    if views.size is None:
        return image
    short, size = views.resize or views.size, views.size
    scale = short / min(image.size)
    width, height = (max(short, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def stacked(
    images: list[NDArray[Any]], names: Sequence[object], indices: NDArray[np.integer]
) -> NDArray[Any]:
    """(B, …). Raises DataError, naming the odd one, unless all have one shape."""
    for image, index in zip(images, indices.tolist(), strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{names[index]}: its shape is {image.shape}, another's {images[0].shape}; "
                "set views.size to bring all to one"
            )
    return np.stack(images)


def from_function(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`package.module:function`, called with (root, split): any map-style dataset of (input, label).

    Inputs are images (PIL, uint8 arrays or tensors) or float arrays, all of one shape; a label is an integer,
    or None.
    """
    module, _, name = settings.name.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(f"data.name {settings.name!r}: cannot be imported ({error})") from None
    dataset = function(root=settings.root, split=split)
    samples = [dataset[index] for index in track(range(len(dataset)), f"reading {settings.name}")]
    if not samples or not all(isinstance(sample, (tuple, list)) and len(sample) == 2 for sample in samples):
        raise DataError(f"{settings.name}: {split}: must give (input, label) for 1 or more samples")
    inputs = [_input_array(sample[0], views) for sample in samples]
    labels = np.array([NO_LABEL if label is None else int(label) for _, label in samples], dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or ())
    indices = np.arange(len(samples))
    return ArrayData(settings.name, split, stacked(inputs, indices.tolist(), indices), labels, classes)


def _input_array(value: Any, views: ViewsSettings) -> NDArray[Any]:
    if isinstance(value, Image.Image):
        return _to_array(fit(value, views))
    array = np.asarray(value)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    if array.dtype not in (np.uint8, np.float32):
        raise DataError(f"inputs must be images, uint8 or float arrays, found {array.dtype}")
    return _resized(array[None], views)[0] if array.dtype == np.uint8 and array.ndim == 3 else array


def _part_folder(root: Path, split: Split) -> Path:
    names = ("train",) if split == "train" else ("test", "val")
    for name in names:
        if (root / name).is_dir():
            return root / name
    if not root.is_dir():
        raise DataError(f"data.root: no such folder: {root}")
    raise DataError(f"{root}: has no folder {' or '.join(names)}")


def _images(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )


def _held(files: FileData) -> ArrayData:
    """Every file decoded once, into one array."""
    shape = files.input_shape
    inputs = np.empty((len(files), *shape), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the decoder lets go of the interpreter's lock
        decoded = pool.map(partial(decode, views=files.views), files.paths, chunksize=256)
        for index, image in enumerate(track(decoded, f"decoding {files.split} images", total=len(files))):
            if image.shape != shape:
                stacked([inputs[0], image], files.paths, np.array([0, index]))
            inputs[index] = image
    return ArrayData(files.name, files.split, inputs, files.labels, files.classes, files.content)


def _resized(images: NDArray[np.uint8], views: ViewsSettings) -> NDArray[np.uint8]:
    """Images (N, C, H, W) at `views.size`."""
    if views.size is None or images.shape[-2:] == (views.size, views.size):
        return images
    modes = [Image.fromarray(image.transpose(1, 2, 0).squeeze()) for image in images]
    return np.stack([_to_array(fit(image, views)) for image in modes])


def _to_array(image: Image.Image) -> NDArray[np.uint8]:
    array = np.asarray(image, dtype=np.uint8)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
