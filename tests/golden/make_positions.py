"""Makes v2-positions-*.h5, the files by which later versions prove that they still read samples of several positions
each. Run once, never again.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache import Dense, Encoding, LogitCacheWriter, Manifest, Positions, Quantised, Sparse


class Kind(NamedTuple):
    encoding: Encoding
    outputs: int
    positions: Positions
    next_tokens: NDArray[np.int64] | None = None


KINDS: dict[str, Kind] = {
    "v2-positions-sparse": Kind(
        Sparse(3, (1.0, 4.0)),
        70_000,
        Positions.of(
            [3, 0, 2, 1],
            predicts="next",
            tokens=[69_999, 2, 3, 4, 5, 6, 65_536, 8, 9, 10, 11],
            token_lengths=[5, 1, 3, 2],
            places=[0, 2, 4, 0, 1, 1],
            tokenizer_sha256="cd" * 32,
            max_length=5,
        ),
    ),
    "v2-positions-dense": Kind(
        Dense("float16"), 5, Positions.of([3] * 4, predicts="here", tokens=np.arange(12) % 7)
    ),
    "v2-positions-dense-u8": Kind(
        Quantised(), 5, Positions.of([300, 0, 1, 9000, 0], predicts="next"), np.arange(9301) % 6 - 1
    ),
    "v2-positions-draws": Kind(
        Sparse(1, draws=3, seed=5), 40, Positions.of([2, 1, 3], predicts="next", tokens=[7, 8, 9, 10, 11, 12])
    ),
}
"""By the file's name."""


def logits_of(view: int, kind: Kind) -> NDArray[np.float64]:
    """(P, C): few values are near each other, so that no library's rounding changes what is stored."""
    count, outputs = kind.positions.num_positions, kind.outputs
    values = np.arange(count * outputs).reshape(count, outputs) * 7919 % (16 * outputs)
    return values / 16.0 % 32 + 4 * view


def make(path: Path, kind: Kind) -> Path:
    samples = kind.positions.num_samples
    manifest = Manifest.build(
        num_samples=samples,
        num_outputs=kind.outputs,
        num_views=2,
        teacher={"network": {"name": "lm"}, "sha256": "ab" * 32},
        data={"name": "texts"},
        encoding=kind.encoding,
        positions=kind.positions,
        info={"made_by": "decant 0.1.0"},
    )
    given: dict[str, Any] = {} if kind.next_tokens is None else {"next_tokens": kind.next_tokens}
    with LogitCacheWriter(path, manifest, positions=kind.positions) as writer:
        for view in range(2):
            writer.write(
                np.arange(samples),
                logits_of(view, kind),
                labels=np.arange(samples) - 1,
                input_crc32=np.arange(samples) + 10 * view,
                view=view,
                **given,
            )
        return writer.publish()


if __name__ == "__main__":
    for name, kind in KINDS.items():
        if Path(__file__).with_name(f"{name}.h5").exists():
            continue
        print(make(Path(__file__).with_name(f"{name}.h5"), kind))
