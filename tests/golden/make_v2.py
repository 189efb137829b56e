"""Makes v2-*.h5, the files by which later versions prove that they still read the second. Run once, never again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache import Encoding, Head, Hidden, LogitCacheWriter, Manifest, Quantised, Sparse

HEAD = Head.of((np.arange(5 * 3).reshape(5, 3) * 7 % 11 - 5) / 4, np.arange(5) / 8, soft_cap=30.0)
ENCODINGS: dict[str, tuple[Encoding, int]] = {
    "v2-dense-u8": (Quantised(), 5),
    "v2-sparse": (Sparse(3, (1.0, 4.0)), 5),
    "v2-sparse-high": (Sparse(5, (0.5, 1.0)), 70_000),
    "v2-draws": (Sparse(1, (1.0, 4.0), draws=3, seed=11), 12),
    "v2-draws-high": (Sparse(0, draws=9, seed=2**62), 70_000),
    "v2-hidden": (Hidden.of(HEAD), 5),
}
"""By the file's name: encoding and number of outputs."""


def logits_of(view: int, outputs: int) -> NDArray[np.float64]:
    """(7, C), or d hidden states in the place of C logits: few values are near each other, so that no library's
    rounding changes what is stored.
    """
    return (np.arange(7 * outputs).reshape(7, outputs) * 7919 % (16 * outputs)) / 16.0 % 32 + 4 * view


def make(path: Path, encoding: Encoding, outputs: int) -> Path:
    manifest = Manifest.build(
        num_samples=7,
        num_outputs=outputs,
        num_views=2,
        teacher={"network": {"name": "conv", "width": 8}, "sha256": "ab" * 32},
        data={"name": "digits", "split": "train"},
        views={"seed": 3},
        encoding=encoding,
        info={"made_by": "decant 0.1.0"},
    )
    head = encoding.head if isinstance(encoding, Hidden) else None
    with LogitCacheWriter(path, manifest, head=head) as writer:
        for view in range(2):
            writer.write(
                np.arange(7),
                logits_of(view, encoding.given_width(outputs)),
                labels=np.arange(7) % 5,
                input_crc32=np.arange(7) + 10 * view,
                view=view,
            )
        return writer.publish()


def golden() -> Iterator[tuple[Path, Encoding, int]]:
    for name, (encoding, outputs) in ENCODINGS.items():
        yield Path(__file__).with_name(f"{name}.h5"), encoding, outputs


if __name__ == "__main__":
    for path, encoding, outputs in golden():
        print(make(path, encoding, outputs))
