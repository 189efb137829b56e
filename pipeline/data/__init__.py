"""Labelled data by name: inputs in a fixed order, their labels, and what identifies them.

named.py         a dataset by its name, checked
samples.py       what is asked of data, whatever the source
sources.py       digits, torchvision's, one's own function
folders.py       folders of images;  images.py  image files → pixels of one size;  pack.py  decoded once, for mapping
tabular.py       tables of numbers;  text.py  texts, tokenised
labels.py        labels from anywhere;  tables.py  .npy, .pt and HDF5 arrays
transfer_set.py  samples that the teacher does not learn from
"""

from __future__ import annotations

from pipeline.data.named import describe, identity, load

__all__ = ["describe", "identity", "load"]
