"""Views: (seed, index, view) → the same augmented pixels.

dataset.py      a dataset through its views;  hashing.py  the random bits of a view
operations.py   what an operation does: geometry.py, colour.py, erasing.py, mixing.py, external.py (of others)
arrays.py       arithmetic on NumPy arrays and tensors alike;  boxes.py  random boxes;  generators.py  global generators
enumeration.py  every outcome of the operations
"""

from decant.pipeline.views.dataset import ViewedData

__all__ = ["ViewedData"]
