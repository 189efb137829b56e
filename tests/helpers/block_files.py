"""The kinds of files that are filled block by block, behind one interface, so that one test can be made of each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitCache, LogitCacheWriter, Manifest, Positions, Store
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.io import partial
from decant.cache.io.block_layout import BlockLayout
from decant.cache.io.blockfile import BlockFile
from decant.pipeline.data import image_pack, pack_filling
from tests.helpers.caches import holds_the_answers, manifest, write
from tests.helpers.positions import ENCODINGS, LENGTHS, manifest_of, positions_of
from tests.helpers.positions import holds_the_answers as holds_positions
from tests.helpers.positions import write_missing as write_positions


class Kind(Protocol):
    """A kind of file of blocks, and one that is built in a folder."""

    def build(self, root: Path) -> Path:
        """What a user's command does: finds it, or else locks, goes on where it was, and publishes."""

    def path(self, root: Path) -> Path:
        """Where it is published."""

    def unfinished(self, root: Path) -> list[Path]:
        """Files that a builder left."""

    def layout(self, path: Path) -> BlockLayout:
        """Of a published or unfinished file."""

    def is_sound(self, path: Path) -> bool:
        """Reads all of a published file; whether it is what was written. Raises what its readers meet."""


class InStore(ABC):
    """The cache of a manifest, where a store has it."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest: ...

    def path(self, root: Path) -> Path:
        return Store(root).path(self.manifest)

    def unfinished(self, root: Path) -> list[Path]:
        return partial.begun(self.path(root))

    def layout(self, path: Path) -> Blocks:
        with open(path, "rb") as file:
            return Blocks(hdf5.check(file, str(path)))


@dataclass
class CacheFile(InStore):
    """A cache of two views, filled in batches that do not end where blocks do."""

    num_samples: int = 50

    @cached_property
    def manifest(self) -> Manifest:
        return manifest(self.num_samples)

    def build(self, root: Path) -> Path:
        store = Store(root)
        if found := store.find(self.manifest):
            return found
        with store.building(self.manifest) as path:
            if found := store.find(self.manifest):
                return found
            with LogitCacheWriter(path, self.manifest) as writer:
                for view in range(self.manifest.num_views):
                    missing = np.flatnonzero(~writer.is_written(view))
                    for start in range(0, len(missing), 20):
                        write(writer, view, missing[start : start + 20])
                return writer.publish()

    def is_sound(self, path: Path) -> bool:
        return holds_the_answers(LogitCache.open(path))


@dataclass
class ImagePack:
    """A pack of images, 21 in a block."""

    count: int = 100

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        return np.random.default_rng(0).integers(0, 256, (self.count, 3, 32, 32)).astype(np.uint8)

    @property
    def pack_layout(self) -> image_pack.Layout:
        return image_pack.Layout("0123abcd", self.count, (3, 32, 32))

    def build(self, root: Path) -> Path:
        def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
            return self.images[indices]

        path = self.path(root)
        pack_filling.find_or_build(path, self.pack_layout, decode, lambda: None, "decoding")
        return path

    def path(self, root: Path) -> Path:
        return root / f"images{image_pack.SUFFIX}"

    def unfinished(self, root: Path) -> list[Path]:
        found = image_pack.partial_path(self.path(root))
        return [found] if found.exists() else []

    def layout(self, path: Path) -> image_pack.Layout:
        return self.pack_layout

    def is_sound(self, path: Path) -> bool:
        pack = image_pack.Pack(path, self.pack_layout)
        return np.array_equal(pack.images(np.arange(self.count)), self.images)


@dataclass
class RaggedCacheFile(InStore):
    """A cache of samples with 0 to 300 positions each, in blocks of 128."""

    num_samples: int = 16

    @cached_property
    def positions(self) -> Positions:
        return positions_of(tuple(np.resize(LENGTHS, self.num_samples).tolist()), extra=1)

    @cached_property
    def manifest(self) -> Manifest:
        return manifest_of(self.positions, views=1)

    def build(self, root: Path) -> Path:
        store = Store(root)
        with store.building(self.manifest) as path:
            found = store.find(self.manifest)
            if found:
                return found
            with LogitCacheWriter(path, self.manifest, positions=self.positions) as writer:
                write_positions(writer, self.positions, batch=11)
                return writer.publish()

    def is_sound(self, path: Path) -> bool:
        return holds_positions(LogitCache.open(path), self.positions, ENCODINGS[0])


KINDS: dict[str, type[CacheFile] | type[RaggedCacheFile] | type[ImagePack]] = {
    "cache": CacheFile,
    "ragged": RaggedCacheFile,
    "pack": ImagePack,
}


def entries(kind: Kind, path: Path) -> NDArray[np.uint64]:
    """The table of entries of a file; zeros where it is not yet ready for blocks."""
    layout = kind.layout(path)
    with open(path, "rb") as file:
        if path.stat().st_size < layout.size:
            return np.zeros(layout.num_blocks, "u8")
        return BlockFile(file.fileno(), layout, path).read_entries()
