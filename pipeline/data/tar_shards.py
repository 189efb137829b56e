"""Shards of webdataset, `webdataset`: tar files whose members are images and labels, in the order of the shards.

An index of offsets is made from the headers, once a command; a member is read at its place, and nothing is unpacked.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from decant.cache.io.opening import open_read
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.external import from_dataset
from decant.pipeline.data.image_decode import decode_bytes
from decant.pipeline.data.part_files import find_files
from decant.pipeline.data.part_names import listed
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError

_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff")
_LABEL = "cls"
_LARGEST = 1 << 30  # bytes of an image file; one with holes may say that it has any number
_LONGEST_LABEL = 1024
"""Bytes: a class id or the name of a class."""


class Member(NamedTuple):
    """Where the content of a member lies."""

    shard: int
    offset: int
    size: int


@dataclass
class Sample:
    """The members of one key, by their ending."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)


def tar_shards(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """`root/train-….tar` and `root/test-….tar` (or `val`, …), uncompressed. A sample are members beside each other that
    have the same name up to its first point: an image, and `.cls`, a class id or the name of a class; or what
    `data.keys` says, as `["png", "txt"]`.

    Raises DataError for a shard that is no such file, that is cut off, or compressed; for a key that comes twice, and a
    sample without image or label.
    """
    shards = _Shards(find_files(settings, split, ".tar"), settings.keys, views)
    names = () if shards.are_numbers else _names(settings, shards, split)
    return from_dataset(shards, names, settings.model_copy(update={"keys": None}), views, split)


def _names(settings: DataSettings, shards: _Shards, split: Split) -> tuple[str, ...]:
    """The names of the classes: those of the training part."""
    if split != "train":
        shards = _Shards(find_files(settings, "train", ".tar"), settings.keys, shards.views)
    return tuple(sorted(set(map(str, shards.targets))))


class _Shards:
    """(image, label) of each sample, read where it lies."""

    def __init__(self, paths: list[Path], keys: Any, views: ViewsSettings) -> None:
        self.paths, self.views, self._keys = paths, views, keys
        self._stamps = [_stamp(path.stat()) for path in paths]
        self._samples = list(_samples(paths))
        written = [self._label(sample) for sample in self._samples]
        self.are_numbers = all(text.lstrip("-").isdecimal() for text in written)
        self.targets: list[int | str] = [int(text) for text in written] if self.are_numbers else list(written)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Any, int | str]:
        sample = self._samples[index]
        ending = self._ending(sample, 0, _IMAGES)
        content = self._read(sample.members[ending])
        name = f"{self.paths[sample.members[ending].shard]}: {sample.key}.{ending}"
        return decode_bytes(content, name, self.views), self.targets[index]

    def _label(self, sample: Sample) -> str:
        member = sample.members[self._ending(sample, 1, (_LABEL,))]
        where = f"{self.paths[member.shard]}: {sample.key}"
        if member.size > _LONGEST_LABEL:
            raise DataError(
                f"{where}: a label of {member.size:,} bytes is no class id and no name of a class"
            )
        try:
            text = self._read(member).decode().strip()
        except UnicodeDecodeError:
            raise DataError(f"{where}: its label is no text") from None
        if not text:
            raise DataError(f"{where}: its label is empty")
        return text

    def _ending(self, sample: Sample, place: int, usual: tuple[str, ...]) -> str:
        """The ending of the image (place 0) or label (1) of a sample."""
        wanted = usual if self._keys is None else (str(self._keys[place]),)
        found = [ending for ending in sample.members if ending.lower() in wanted]
        if len(found) != 1:
            shard = self.paths[next(iter(sample.members.values())).shard]
            what, example = ("image", '["jpg", "cls"]') if place == 0 else ("label", '["jpg", "cls"]')
            raise DataError(
                f"{shard}: sample {sample.key}: which member is the {what}? it has {listed(sample.members)}; "
                f"set data.keys = {example} or the like{_of_dots(sample, usual) if not found else ''}"
            )
        return found[0]

    def _read(self, member: Member) -> bytes:
        path = self.paths[member.shard]
        if member.size > _LARGEST:
            raise DataError(
                f"{path}: has a member of {member.size:,} bytes, and at most {_LARGEST:,} are read"
            )
        with open_read(path) as file:
            content = os.pread(file.fileno(), member.size, member.offset)
            if _stamp(os.fstat(file.fileno())) != self._stamps[member.shard]:
                raise DataError(f"{path}: was changed while it was read; run the command again")
        return content


def _samples(paths: list[Path]) -> Iterator[Sample]:
    """The samples of all shards in order. Raises DataError for a key that comes twice."""
    seen = set[str]()
    sample: Sample | None = None
    for shard, path in enumerate(paths):
        for name, member in _members(path, shard):
            folder, _, base = name.rpartition("/")
            stem, point, ending = base.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if not stem or not point:  # as webdataset reads them
                continue
            if sample is None or sample.key != key or next(iter(sample.members.values())).shard != shard:
                if sample is not None:
                    yield sample
                if key in seen:
                    raise DataError(f"{path}: {key}: comes twice; every sample needs a key of its own")
                seen.add(key)
                sample = Sample(key)
            if ending in sample.members:
                raise DataError(f"{path}: {name}: comes twice")
            sample.members[ending] = member
    if sample is not None:
        yield sample


def _members(path: Path, shard: int) -> Iterator[tuple[str, Member]]:
    """Name and place of each plain file in a tar; folders are passed over. Raises DataError for links, devices and
    files with holes, and where the file is cut off.
    """
    size = path.stat().st_size
    try:
        with open_read(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for entry in tar:
                if entry.isdir():
                    continue
                if not entry.isreg() or entry.issparse():
                    raise DataError(f"{path}: {entry.name}: is a link or a device, and plain files are read")
                if entry.offset_data + entry.size > size:
                    raise DataError(f"{path}: is cut off in {entry.name}; fetch or write it again")
                yield entry.name, Member(shard, entry.offset_data, entry.size)
                tar.members = []  # type: ignore[attr-defined]  # or every header would stay in memory
            _require_end(path, file, tar.offset)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: not a tar file that can be indexed ({' '.join(str(error).split())}); compressed ones must be "
            "unpacked: gunzip"
        ) from None


def _require_end(path: Path, file: BinaryIO, offset: int) -> None:
    """Raises DataError where a tar does not end with its mark: a file that was cut off between two members."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise DataError(f"{path}: has no end mark, so it may be cut off; fetch or write it again")


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _of_dots(sample: Sample, usual: tuple[str, ...]) -> str:
    """A hint for names as img.v0.png, of which the key is img."""
    dotted = any("." in ending and ending.lower().rpartition(".")[2] in usual for ending in sample.members)
    hint = f"; a key ends at the first dot of a name, as in webdataset, which leaves {sample.key} here"
    return hint if dotted else ""
