"""Image folders: which files are which samples, and their pixels from a decoded pack, from memory, or from the
files as they are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decant.cache import StorageError, Store
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.data import image_pack, pack_filling
from decant.pipeline.data.image_decode import DECODING, decode, decoder
from decant.pipeline.data.image_files import list_part
from decant.pipeline.data.listed_reader import ListedFile, ListedReader
from decant.pipeline.data.pack_ahead import HeldAhead, Listed, find_or_fill_ahead
from decant.pipeline.data.pack_room import fits_in_memory, require_room
from decant.pipeline.data.samples import (
    MAX_ARRAY_BYTES,
    ArrayData,
    LabelledData,
    ListedFiles,
    Split,
    WhenDecoded,
)
from decant.pipeline.data.thread_count import fixed_count
from decant.pipeline.errors import ChangedError, DataError
from decant.pipeline.ranks.cores import available_cores
from decant.pipeline.ranks.launch import launched
from decant.pipeline.support.notices import say
from decant.pipeline.support.progress import track

WORTH_PACKING = 1_000  # images; fewer are decoded in the time that it takes to say so


def image_folder(
    settings: DataSettings, views: ViewsSettings, split: Split, *, decode: WhenDecoded = "at once"
) -> LabelledData:
    """A user's own `root/train/CLASS/*` and `root/test`, `val`, `valid` or `validation`; files in the order of their
    paths.

    decode: when files are decoded; wherever a pack is wanted, into the pack.

    The digest covers relative paths, sizes and labels; the CRC-32 of each input, which the cache holds,
    covers the pixels.
    """
    files = listed_images(settings, views, split)
    packed = _packed(files, settings.pack, decode)
    if packed is not None:
        return packed
    layout = image_pack.Layout("", len(files), files.input_shape)
    if (decode == "as needed" and views.num_views == 1) or layout.pixel_bytes > MAX_ARRAY_BYTES:
        return files
    return (
        files.read_from(HeldAhead(layout, files.raw, Listed(files.reader, files.listed)), lazy=False)
        if decode == "ahead"
        else _held(files)
    )


def listed_images(settings: DataSettings, views: ViewsSettings, split: Split) -> FileData:
    """The same samples; each file is decoded when it is read, and not before."""
    part = list_part(settings, split)
    paths = [path for path, _ in part.files]
    labels = np.array([label for _, label in part.files], dtype=np.int64)
    digest = hashlib.sha256()
    if split == "test" and settings.test is not None:
        digest.update(os.fsencode(f"{settings.test}\0"))  # files of two test parts may be called alike
    empty, stamps, beginning = [], np.zeros((len(paths), 2), np.int64), len(part.folder.as_posix()) + 1
    for index, (path, label) in enumerate(part.files):
        status = path.stat()
        size, stamps[index] = status.st_size, (status.st_size, status.st_mtime_ns)
        empty += [] if size else [path]
        line = f"{path.as_posix()[beginning:]}\0{size}\0{label}\n"
        digest.update(os.fsencode(line))  # a name need not be text
    if empty:
        more = f", as are {len(empty) - 1:,} more" if len(empty) > 1 else ""
        raise DataError(f"{empty[0]}: not a readable image (an empty file{more})")
    return FileData("imagefolder", split, paths, labels, part.classes, digest.hexdigest(), views, stamps)


def image_files(settings: DataSettings, split: Split) -> list[Path]:
    """The file of each sample of `image_folder`, in order."""
    return [path for path, _ in list_part(settings, split).files]


@dataclass
class FileData:
    """Image files, each decoded when it is read."""

    name: str
    split: Split
    paths: Sequence[Path]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    content: str
    views: ViewsSettings
    stamps: NDArray[np.int64]
    """(N, 2): bytes of each file, and when it was last written to, as the folder was listed."""
    task: Task | None = None

    lazy = True
    decoding = DECODING

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def first(self) -> NDArray[np.uint8]:
        """The image whose shape all others must have."""
        return decode(self.paths[0], self.views)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.first.shape

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        return np.stack([self.image(index) for index in indices.tolist()])

    def image(self, index: int) -> NDArray[np.uint8]:
        """(C, H, W). Raises DataError as `ListedReader.image` does."""
        size, written = self.stamps[index].tolist()
        return self.reader.image(self.paths[index], size, written)

    @cached_property
    def reader(self) -> ListedReader:
        """What decodes the files."""
        return ListedReader(self.name, self.views, self.input_shape)

    def listed(self, first: int, end: int) -> list[ListedFile]:
        """Some files, for another process."""
        stamps = self.stamps[first:end].tolist()
        return [
            (os.fspath(path), size, written)
            for path, (size, written) in zip(self.paths[first:end], stamps, strict=True)
        ]

    def digest(self) -> str:
        return self.content

    @property
    def files(self) -> ListedFiles:
        """As the folder was listed."""
        return ListedFiles(self.paths, self.stamps[:, 0])

    def read_from(self, images: Images, lazy: bool) -> PackedData:
        """The same samples, their images from elsewhere."""
        return PackedData(
            self.name, self.split, images, self.labels, self.classes, self.content, lazy, files=self.files
        )

    def pixels_key(self) -> str:
        """SHA-256 of all that decides the pixels: the files and when each was last changed, the size that they are
        brought to, and the decoder.

        The time of change is the inode's, which no program can set back as it can that of modification.
        """
        times = hashlib.sha256()
        for path in self.paths:
            status = path.stat()
            times.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n".encode())
        resize = None if self.views.resize == self.views.size else self.views.resize
        decisive = [self.content, times.hexdigest(), self.views.size, resize, self.views.channels, decoder()]
        return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


class Images(Protocol):
    """Decoded images, in a pack or in memory, or while they get there."""

    layout: image_pack.Layout

    def images(self, indices: NDArray[np.integer], /) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy."""

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises an error where what was read is no longer what is there."""


@dataclass
class PackedData:
    """Image files that are decoded once, read from their pack, or from memory."""

    name: str
    split: Split
    images: Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    content: str
    lazy: bool
    """Whether the pack is too large for the memory, so that reading it waits for the disk, or is being filled."""
    task: Task | None = None
    files: ListedFiles | None = None

    decoding = DECODING

    def __len__(self) -> int:
        return self.images.layout.count

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.images.layout.image_shape

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        return self.images.images(indices)

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the pack is no longer what was read from it; with `checksums` waits for one that is
        being filled, and raises DataError where files have changed meanwhile.
        """
        self.images.check_unchanged(checksums=checksums)

    def digest(self) -> str:
        return self.content


def _packed(files: FileData, wanted: str, when: WhenDecoded) -> PackedData | None:
    """The files' pack, whole or filled as `when` says; None where it is not wanted, is too small to
    be worth it, or cannot be made, which is printed. Several processes that share the decoding need it however small.

    Where `wanted` is "always", the error that prevents it is raised.
    """
    divided = when == "as needed" or launched() is not None
    if wanted == "never" or (wanted == "auto" and len(files) < WORTH_PACKING and not divided):
        return None
    layout = image_pack.Layout(files.pixels_key(), len(files), files.input_shape)
    shape = "x".join(map(str, files.input_shape))
    name = f"{files.name}-{files.split}-{shape}-{layout.key[:16]}{image_pack.SUFFIX}"
    path = Store().root / image_pack.FOLDER / name

    def confirm() -> None:
        if files.pixels_key() != layout.key:
            raise ChangedError(
                f"{files.name}: {files.split}: files changed while they were decoded; run the same command again"
            )

    try:
        if wanted == "auto" and not path.exists():
            require_room(path, layout.size)
        images, lazy = _fill(files, path, layout, confirm, when, wanted == "always")
    except (OSError, StorageError) as error:
        if wanted == "always":
            raise
        say(f"{error}; the images are decoded without a pack")
        return None
    return files.read_from(images, lazy or not fits_in_memory(layout.size))


def _fill(
    files: FileData,
    path: Path,
    layout: image_pack.Layout,
    confirm: Callable[[], None],
    when: WhenDecoded,
    required: bool,
) -> tuple[Images, bool]:
    """What reads a pack, and whether workers that read it are worth their start. Ranks fill one together."""
    if when == "as needed":
        found = pack_filling.find_or_fill(path, layout, files.raw)
        return found, isinstance(found, pack_filling.Filling)
    description = f"decoding {files.split} images"
    if when == "at once":
        return pack_filling.find_or_build(path, layout, files.raw, confirm, description), False
    listed = Listed(files.reader, files.listed)
    return find_or_fill_ahead(path, layout, files.raw, confirm, description, required, listed), False


def _held(files: FileData) -> ArrayData:
    """Every file decoded into one array."""
    inputs = np.empty((len(files), *files.input_shape), np.uint8)
    with ThreadPoolExecutor(fixed_count(available_cores())) as pool:
        decoded = pool.map(files.image, range(len(files)))
        try:
            for index, image in enumerate(track(decoded, f"decoding {files.split} images", total=len(files))):
                inputs[index] = image
        except BaseException:  # also Ctrl-C: the files that wait need not be decoded
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return ArrayData(
        files.name, files.split, inputs, files.labels, files.classes, files.content, files.decoding,
        files=files.files,
    )  # fmt: skip
