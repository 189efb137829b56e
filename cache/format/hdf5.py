"""The HDF5 file: creates it, checks it, finds its tables. Its version is the first whose readers know its encoding.

A file is a header that only libhdf5 writes, then contiguous tables on page boundaries (`tables.py`), then nothing:

    header   root attributes `format`, `format_version`, `manifest`; the objects that describe the tables
    logits | labels | input_crc32 | blocks | seal

The whole header is written once, when the file is created. `seal` holds its length and SHA-256, and ends the
file, so it is found without reading any HDF5: a flipped bit in the header is seen before libhdf5 parses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5l, h5o, h5p, h5s, h5t
from numpy.typing import NDArray

from decant.cache.errors import FormatError, NewerFormatError
from decant.cache.format.offsets import read_offsets
from decant.cache.format.tables import Layout, Table, TableSpec, expected_size, expected_tables
from decant.cache.io.files import name_file, write_all
from decant.cache.io.system import close_quietly, pread
from decant.cache.manifest import MAX_BYTES, Manifest

FORMAT = b"soft-label-cache"
FORMAT_VERSION = 2
"""The newest version that is read; 1 is what dense logits are written as."""
PAGE = 4096

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SEAL = struct.Struct("<Q32s")  # length of the header, its SHA-256: SEAL_BYTES
_FEW_LINKS = 8  # of a group that libhdf5 keeps in the group's own object; more have a heap and a tree
_LINK_PAGES = 16  # that heap and tree take, and more
_MAX_HEADER = 1 << 20
_MAX_SIZE = 1 << 60


def create(
    path: str | os.PathLike[str], manifest: Manifest, known: Mapping[str, NDArray[Any]] | None = None
) -> tuple[Layout, int]:
    """Creates the file with its header sealed and every table at its final place, empty but for the `known` ones;
    returns its layout, and a descriptor to read and write it.

    known: tables of positions by name, see `Positions.tables`. `path` must not exist, not even as a link that leads
    nowhere: raises FileExistsError.
    """
    if expected_size(manifest) > _MAX_SIZE:  # libhdf5 would count it modulo 2⁶⁴
        raise FormatError(f"{path}: {expected_size(manifest):,} bytes are more than a file can have")
    text = manifest.to_json()
    try:
        tables, fd = _create(path, manifest, text)
    except OSError as error:
        if not error.errno:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error  # h5py says it at length
    try:
        length = next(iter(tables.values())).offset
        digest = hashlib.sha256(pread(fd, length, 0)).digest()
        write_all(fd, _SEAL.pack(length, digest), tables["seal"].offset, Path(path))
        for name, content in (known or {}).items():
            stored = np.ascontiguousarray(content, tables[name].dtype)
            write_all(fd, stored.data, tables[name].offset, Path(path))
        with os.fdopen(fd, "rb", closefd=False) as raw:
            return check(raw, str(path)), fd
    except BaseException:
        close_quietly(fd)
        raise


def _create(path: str | os.PathLike[str], manifest: Manifest, text: bytes) -> tuple[dict[str, Table], int]:
    """Has HDF5 write the header; returns where the tables lie, and a descriptor of the file."""
    fd = -1
    try:
        with h5py.File(_new_file(path, _block_size(manifest, text))) as file:
            file.attrs.create("format", np.bytes_(FORMAT))
            file.attrs.create("format_version", np.array(manifest.format_version, "<i8"))
            file.attrs.create("manifest", np.bytes_(text))
            for name, spec in expected_tables(manifest).items():
                _create_table(file, name, spec)
            tables = {name: _table_of(file, name, spec) for name, spec in expected_tables(manifest).items()}
            fd = os.dup(file.id.get_vfd_handle())  # of this very file, whatever has its name by now
    except BaseException:  # also of closing it, which a disk may refuse
        if fd >= 0:
            close_quietly(fd)
        raise
    return tables, fd


def _new_file(path: str | os.PathLike[str], block_size: int) -> h5f.FileID:
    """A new file whose root group has no time of its own, which h5py leaves out by itself only in later versions: equal
    content gives equal bytes.
    """
    access, creation = h5p.create(h5p.FILE_ACCESS), h5p.create(h5p.FILE_CREATE)
    access.set_libver_bounds(h5f.LIBVER_V18, h5f.LIBVER_V18)
    access.set_file_locking(False, False)  # the writer has its own, and some file systems have none
    access.set_alignment(0, PAGE)
    access.set_meta_block_size(block_size)
    access.set_fclose_degree(h5f.CLOSE_STRONG)
    creation.set_obj_track_times(False)
    return h5f.create(os.fsencode(path), h5f.ACC_EXCL, fapl=access, fcpl=creation)


def header_room(manifest: Manifest) -> int:
    """Bytes that the header of a file with this manifest takes at most.

    >>> header_room(Manifest.build(num_samples=50_000, num_outputs=100))
    69632
    """
    return 2 * _block_size(manifest, manifest.to_json()) + PAGE


def _block_size(manifest: Manifest, text: bytes) -> int:
    """Bytes of one block that holds all metadata, so that the header comes before the first table.

    libhdf5 gives a page to each table's object, to the superblock, to the root group and to what remains of it. Where
    there are more names than the root group itself holds, their heap and their index take pages too.
    """
    tables = len(expected_tables(manifest))
    objects = PAGE * (tables + 3 + (_LINK_PAGES if tables > _FEW_LINKS else 0))
    return max(1 << (2 * len(text) + 16 * 1024).bit_length(), 1 << (objects - 1).bit_length())


def check(file: BinaryIO, path: str) -> Layout:
    """Checks the structure of an open file and returns its layout; reads no row. Raises FormatError.

    As `check_header`, and last the offsets of samples that have several positions each.
    """
    layout = check_header(file, path)
    with _naming(path):
        offsets = read_offsets(file.fileno(), layout.manifest, layout.tables, path)
    return Layout(layout.manifest, layout.tables, offsets)


def check_header(file: BinaryIO, path: str) -> Layout:
    """Checks all of a file that can be told by its header, its seal and its length, and returns its layout, without
    offsets. Raises FormatError, and an OSError that names the file where the disk fails: that says nothing of the file.

    Checks in this order: the seal (no HDF5 is parsed before the header's digest holds), the attributes, then each
    table's name, link, storage, shape, dtype and place against the manifest, then the file's size and the
    gaps between tables.
    """
    with _naming(path):
        size = os.fstat(file.fileno()).st_size
        header = _read_sealed(file.fileno(), size, path)
    try:
        with h5py.File(_Header(header, size), "r") as hdf:
            manifest = _read_manifest(hdf, path)
            specs = expected_tables(manifest)
            _check_links(hdf, list(specs), path)
            tables = {name: _table_of(hdf, name, spec) for name, spec in specs.items()}
    except FormatError as error:
        raise type(error)(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise FormatError(f"{path}: HDF5 structure cannot be read ({error})") from None
    with _naming(path):
        _check_places(file.fileno(), tables, len(header), size, path)
    return Layout(manifest, tables)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Adds the name of the file to an error of reading it, which has none."""
    try:
        yield
    except OSError as error:
        name_file(error, Path(path))
        raise


def is_damaged_cache(file: BinaryIO) -> bool:
    """Whether a file that `check` refuses begins as a cache does, so that it is the rest of one."""
    start = file.read(_MAX_HEADER)
    return start.startswith(_SIGNATURE) and FORMAT in start


class _Header:
    """The file as libhdf5 sees it: its length and the bytes of the header, and nothing else."""

    def __init__(self, header: bytes, size: int) -> None:
        self._bytes, self._size, self._at = header, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        end = self._size if count < 0 else self._at + count
        if self._at < 0 or end > len(self._bytes):
            raise OSError("metadata outside the header")
        found, self._at = self._bytes[self._at : end], end
        return found

    def readinto(self, buffer: bytearray | memoryview) -> int:
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def write(self, _: bytes) -> int:
        raise OSError("read only")

    def truncate(self, _: int | None = None) -> int:
        raise OSError("read only")

    def flush(self) -> None:
        pass


def _read_sealed(fd: int, size: int, path: str) -> bytes:
    """The header, whose SHA-256 agrees with the seal at the end of the file."""
    start = pread(fd, 64, 0)
    if not start.startswith(_SIGNATURE):
        raise FormatError(f"{path}: not an HDF5 file, so not a cache")
    stated_end = int.from_bytes(start[28:36], "little")  # the superblock's end-of-file address
    if start[8:9] == b"\x02" and stated_end > size:
        raise FormatError(f"{path}: cut short: {size:,} bytes of {stated_end:,}; fetch or build it again")
    seal = pread(fd, _SEAL.size, max(0, size - _SEAL.size))
    length, digest = _SEAL.unpack(seal) if len(seal) == _SEAL.size else (0, b"")
    header = pread(fd, length, 0) if 0 < length <= min(size, _MAX_HEADER) else b""
    if not header or hashlib.sha256(header).digest() != digest:
        raise FormatError(
            f"{path}: the header does not agree with its seal: damaged, or an HDF5 file that is not a cache"
        )
    return header


def _check_links(hdf: h5py.File, names: list[str], path: str) -> None:
    """Raises FormatError unless the root group holds the tables and nothing else, by hard links."""
    if sorted(hdf.id) != sorted(name.encode() for name in names):
        raise FormatError(f"{path}: must hold exactly the tables {', '.join(names)}")
    for name in names:
        if hdf.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise FormatError(f"{path}: `{name}` must be a hard link")


def _read_manifest(hdf: h5py.File, path: str) -> Manifest:
    if _read_attribute(hdf, "format", len(FORMAT), h5t.STRING) != FORMAT:
        raise FormatError(f"{path}: not a soft-label cache (its `format` attribute is another)")
    version = int.from_bytes(_read_attribute(hdf, "format_version", 8, h5t.INTEGER), "little")
    if version > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path}: format_version: read up to {FORMAT_VERSION}, found {version}; update decant"
        )
    if h5a.get_num_attrs(hdf.id) != 3:
        raise FormatError(f"{path}: must have exactly the attributes format, format_version, manifest")
    manifest = Manifest.from_json(_read_attribute(hdf, "manifest", MAX_BYTES, h5t.STRING))
    if version != manifest.format_version:
        raise FormatError(f"{path}: format_version: expected {manifest.format_version}, found {version}")
    return manifest


def _read_attribute(hdf: h5py.File, name: str, limit: int, kind: int) -> bytes:
    """The bytes of a scalar attribute, whose type and size are checked before it is read."""
    if not h5a.exists(hdf.id, name.encode()):
        raise FormatError(f"attribute `{name}` is missing: not a soft-label cache")
    attribute = h5a.open(hdf.id, name.encode())
    stored = attribute.get_type()
    plain = stored.get_class() == kind and not (kind == h5t.STRING and stored.is_variable_str())
    if not plain or attribute.get_space().get_simple_extent_type() != h5s.SCALAR or stored.get_size() > limit:
        raise FormatError(f"attribute `{name}` is not of the type and size that the format says")
    if kind == h5t.INTEGER and not stored.equal(h5t.STD_I64LE):
        raise FormatError(f"attribute `{name}` is not a little-endian 64-bit integer")
    value = np.empty((), f"S{stored.get_size()}" if kind == h5t.STRING else "<i8")
    attribute.read(value, mtype=stored)
    return value.tobytes()


def _create_table(file: h5py.File, name: str, spec: TableSpec) -> None:
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_layout(h5d.CONTIGUOUS)
    plan.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5d.FILL_TIME_NEVER)
    plan.set_obj_track_times(False)  # equal content gives equal bytes
    h5d.create(file.id, name.encode(), h5t.py_create(spec.dtype), h5s.create_simple(spec.shape), plan)


def _table_of(hdf: h5py.File, name: str, spec: TableSpec) -> Table:
    """Where a table lies. Raises FormatError unless it is plain contiguous storage of this shape and dtype."""
    opened = h5o.open(hdf.id, name.encode())
    if not isinstance(opened, h5d.DatasetID):
        raise FormatError(f"`{name}` is not a dataset")
    plan, space = opened.get_create_plist(), opened.get_space()
    if plan.get_layout() != h5d.CONTIGUOUS or plan.get_external_count() or plan.get_nfilters():
        raise FormatError(f"`{name}` must be stored contiguous, in this file, without filters")
    if h5a.get_num_attrs(opened):
        raise FormatError(f"`{name}` must have no attributes")
    if not opened.get_type().equal(h5t.py_create(spec.dtype)):
        raise FormatError(f"`{name}`: dtype: expected {spec.dtype.str}, found {opened.get_type().dtype}")
    dims = space.get_simple_extent_dims() if space.get_simple_extent_type() == h5s.SIMPLE else None
    if dims != spec.shape or space.get_simple_extent_dims(True) != spec.shape:
        raise FormatError(f"`{name}`: shape: expected {spec.shape}, found {dims}")
    offset = opened.get_offset()
    if offset is None:
        raise FormatError(f"`{name}` has no storage in the file")
    return Table(int(offset), *spec)


def _check_places(fd: int, tables: Mapping[str, Table], header: int, size: int, path: str) -> None:
    """Raises FormatError unless tables follow the header in order, page by page, with zeros between, to the end."""
    end = header
    for place, (name, table) in enumerate(tables.items()):
        if (
            table.offset % PAGE
            or not end <= table.offset < end + PAGE
            or (place == 0 and table.offset != header)
        ):
            raise FormatError(
                f"{path}: `{name}` lies at byte {table.offset:,}, expected at the page after {end:,}"
            )
        if any(pread(fd, table.offset - end, end)):
            raise FormatError(f"{path}: bytes {end:,} to {table.offset:,}, before `{name}`, must be zero")
        end = table.end
    if end != size:
        raise FormatError(f"{path}: has {size:,} bytes, and its last table ends after {end:,}")
