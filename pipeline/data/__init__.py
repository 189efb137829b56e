"""Labelled data by name: inputs in a fixed order, their labels, and what identifies them.

registry.py      a dataset by its name, checked;  spelling.py  class names that are nearly alike
samples.py       the interface that every dataset has
doubts.py        what is likely not meant;  between_parts.py  the training part against the test part
builtin.py       the ones that ship: digits, diabetes, torchvision's
external.py      one's own function;  items.py  where input and label lie in an item of it
image_folder.py  folders of images;  image_files.py  classes, and which files are read;  found_images.py  of any folder;
                 image_decode.py  their pixels;  image_pixels.py  of an open image;  input_arrays.py  of any input;
                 listed_reader.py  of files that must be as they were listed
image_pack.py    decoded once, for mapping;  pack_filling.py  by all who need it;  pack_room.py  where it fits
decode_ahead.py  threads that decode ahead of a reader, thread_count.py of them;  pack_ahead.py  into a pack or memory
decode_processes.py  processes beside them, on many cores;  decode_process.py  what one of these does
openmp_teams.py  PyTorch's threads sleep meanwhile
text.py          texts, tokenised;  text_pack.py  once;  shared_items.py  items that ranks read together
hub_parts.py     datasets of Hugging Face's hub, loaded by name
hugging_face.py, tar_shards.py (webdataset), parquet.py, array_folder.py (NumPy)  files of other libraries;
columns.py       which of their columns are input and label;  part_files.py  which files are a part, by part_names.py
labels.py        labels of any form → classes or targets;  sigmoid_labels.py  one, or several, of 0 and 1
array_files.py   .npy, .pt and HDF5 arrays;  stored_arrays.py  those in a .npz file, mapped
kept_classes.py  columns of logits that belong to the data's classes;  imported_columns.py  of a table to be imported
held_out.py      samples that the teacher is not trained on;  validation.py  those that no network is trained on
"""

from __future__ import annotations

from decant.pipeline.data.registry import describe_data, identity, load_data

__all__ = ["describe_data", "identity", "load_data"]
