"""Tables that all rows share, as the head of hidden states, which no block has: checked against the identity."""

from __future__ import annotations

import numpy as np

from decant.cache.format.tables import Layout
from decant.cache.io.block_layout import ReadBytes


def check_shared_tables(layout: Layout, read: ReadBytes) -> None:
    """Raises FormatError where one of them, as `read` finds it, is not the one that the identity has the digest of.

    >>> from decant.cache.manifest import Manifest
    >>> check_shared_tables(Layout(Manifest.build(num_samples=2, num_outputs=3), {}), read=lambda first, end: b"")
    """
    encoding = layout.manifest.encoding
    tables = {name: layout.tables[name] for name in encoding.once(layout.manifest.num_outputs)}
    if tables:
        encoding.check_once(
            {
                name: np.frombuffer(read(table.offset, table.end), table.dtype).reshape(table.shape)
                for name, table in tables.items()
            }
        )
