"""What is known of positions when a cache is begun: taken from the caller, and read back from the file."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.encodings import Head, Hidden
from decant.cache.errors import FormatError, ValueRefusedError
from decant.cache.format.blocks import StoredRows
from decant.cache.format.hdf5 import check_header
from decant.cache.format.tables import Layout, Table
from decant.cache.identities import require_equal
from decant.cache.io.files import write_all
from decant.cache.io.opening import open_read
from decant.cache.manifest import POSITIONS, Manifest
from decant.cache.positions import Positions, sha256

_FIELDS_OF_ARRAYS = ("count", "length", "offsets_sha256", "predicts", "tokens", "places_sha256")


def require_positions(
    manifest: Manifest,
    positions: Positions | None,
    lengths: ArrayLike | None,
    tokens: ArrayLike | None,
) -> Positions | None:
    """The positions that a cache with this manifest is begun with; None where nothing of them is given.

    Raises MismatchError, naming every field, where they are others than those of the manifest, and ValueRefusedError
    where the next token is no output of the teacher.
    """
    about = manifest.positions
    if positions is None and lengths is None:
        if tokens is not None:
            raise ValueRefusedError("tokens: give the lengths with them, or positions=Positions.of(…)")
        return None
    if about is None:
        raise ValueRefusedError("positions: build the manifest with them: Manifest.build(…, positions=…)")
    if positions is None:
        assert lengths is not None
        entries = {
            name: value
            for name, value in manifest.identity[POSITIONS].items()
            if name not in _FIELDS_OF_ARRAYS
        }
        positions = Positions.of(lengths, predicts=about.predicts, tokens=tokens, **entries)
    elif lengths is not None or tokens is not None:
        raise ValueRefusedError("lengths and tokens: positions have them: give one of both")
    require_equal(
        {**manifest.identity, POSITIONS: positions.identity},
        manifest.identity,
        subject="positions: not those that the manifest was built with",
        hint="Give the same to Manifest.build and to LogitCacheWriter.",
        sections=(POSITIONS,),
    )
    _require_samples(manifest, positions)
    return positions


def _require_samples(manifest: Manifest, positions: Positions) -> None:
    if positions.num_samples != manifest.num_samples:
        raise ValueRefusedError(
            f"positions: of {positions.num_samples:,} samples, and the manifest has {manifest.num_samples:,}"
        )
    tokens = positions.tokens
    most = -1 if tokens is None or positions.identity["predicts"] != "next" else int(tokens.max())
    if most >= manifest.num_outputs:
        raise ValueRefusedError(
            f"tokens: {most} is no output of the teacher, which has {manifest.num_outputs:,}"
        )


def known_positions(stored: StoredRows) -> Positions | None:
    """The positions that an unfinished file holds, whose tokens are mapped from it; None where its samples have one row
    each.

    Raises FormatError where tokens are no longer those that it was begun with.
    """
    layout = stored.blocks.layout
    manifest, about = layout.manifest, layout.manifest.positions
    if about is None:
        return None
    found: dict[str, NDArray[Any]] = {}
    for name, digest in (("tokens", about.token_sha256), ("places", about.places_sha256)):
        if digest is not None:
            found[name] = _mapped(stored, layout.tables[name])
            if sha256(found[name]) != digest:
                raise FormatError(
                    f"{stored.file.path}: `{name}` is not as it was begun; delete it and run the command again"
                )
    tokens = layout.axes["token"] if "tokens" in found else None
    return Positions(
        manifest.identity[POSITIONS],
        layout.axes["position"],
        found.get("tokens"),
        tokens,
        found.get("places"),
    )


def require_head(manifest: Manifest, head: Head | None) -> None:
    """Raises ValueRefusedError where a head is given to a cache that has none, and MismatchError where it is another
    than that of the manifest.
    """
    encoding = manifest.encoding
    if head is None:
        return
    if not isinstance(encoding, Hidden):
        raise ValueRefusedError("head: is of hidden states: build the manifest with encoding=Hidden.of(head)")
    require_equal(
        {
            **manifest.identity,
            "encoding": {**manifest.identity["encoding"], **Hidden.of(head, encoding.dtype).identity},
        },
        manifest.identity,
        subject="head: not the one that the manifest was built with",
        hint="Give the same to Hidden.of and to LogitCacheWriter.",
        sections=("encoding",),
    )


def bound_layout(stored: StoredRows) -> Layout:
    """The layout of an unfinished file, whose encoding has the tables that all rows share, mapped from the file.

    Raises FormatError where these are no longer those that it was begun with.
    """
    layout, encoding = stored.blocks.layout, stored.blocks.layout.manifest.encoding
    once = {name: _mapped(stored, layout.tables[name]) for name in encoding.once(layout.manifest.num_outputs)}
    if not once:
        return layout
    try:
        encoding.check_once(once)
    except FormatError as error:
        raise FormatError(f"{stored.file.path}: {error}; delete it and run the command again") from None
    return replace(layout, bound=encoding.bind(once))


def restore_known(fd: int, path: Path, manifest: Manifest, known: Mapping[str, NDArray[Any]]) -> None:
    """Writes the tables of an unfinished file that are known beforehand once more: bits may change while nobody builds
    it. Nothing where the file is of another identity. Raises FormatError where its header is damaged, StorageError.
    """
    with os.fdopen(os.dup(fd), "rb") as file:
        layout = check_header(file, str(path))
    if layout.manifest.key != manifest.key:
        return
    for name, content in known.items():
        table = layout.tables[name]
        write_all(fd, np.ascontiguousarray(content, table.dtype).data, table.offset, path)


def _mapped(stored: StoredRows, table: Table) -> NDArray[Any]:
    """A table of an unfinished file, without a copy. The file is opened for that once more: a map of the writer's own
    would hold its lock for as long as somebody has the array.
    """
    with contextlib.suppress(OSError), open_read(stored.file.path, follow=False) as file:  # else it is read
        if os.path.sameopenfile(file.fileno(), stored.file.fd):
            content = mmap.mmap(file.fileno(), table.end, access=mmap.ACCESS_READ)
            return _shaped(np.frombuffer(content, table.dtype, offset=table.offset), table)
    return _shaped(np.frombuffer(stored.file.read(table.offset, table.end), table.dtype), table)


def _shaped(values: NDArray[Any], table: Table) -> NDArray[Any]:
    return values.reshape(table.shape)
