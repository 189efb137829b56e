"""Labelled data by name: inputs in a fixed order, their labels, and what identifies them.

registry.py      a dataset by its name, checked
samples.py       what is asked of data, whatever the source
builtin.py       digits, torchvision's, one's own function
image_folder.py  folders of images;  image_decode.py  image files → pixels of one size
image_pack.py    decoded once, for mapping
tabular.py       tables of numbers;  text.py  texts, tokenised
labels.py        labels from anywhere;  array_files.py  .npy, .pt and HDF5 arrays
held_out.py      samples that the teacher does not learn from
"""

from __future__ import annotations

from decant.pipeline.data.registry import describe, identity, load

__all__ = ["describe", "identity", "load"]
