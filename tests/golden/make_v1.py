"""Makes v1.h5, the file by which later versions prove that they still read the first. Run once, never again."""

from pathlib import Path

import numpy as np

from decant.cache import LogitCacheWriter, Manifest

manifest = Manifest.build(
    num_samples=7,
    num_outputs=5,
    num_views=2,
    teacher={"network": {"name": "conv", "width": 8}, "sha256": "ab" * 32},
    data={"name": "digits", "split": "train", "classes": ["null", "één", "two", "three", "four"]},
    views={"seed": 3},
    info={"made_by": "decant 0.1.0"},
)
with LogitCacheWriter(Path(__file__).with_name("v1.h5"), manifest) as writer:
    for view in range(2):
        logits = (np.arange(35).reshape(7, 5) - 17) / 8 + 100 * view
        writer.write(
            np.arange(7), logits, labels=np.arange(7) % 5, input_crc32=np.arange(7) + 10 * view, view=view
        )
    print(writer.publish())
