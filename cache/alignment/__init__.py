"""Whether the samples of a dataset are those of a cache's rows, and which row a sample has; with NumPy alone.

keys.py              the keys of a dataset: an index, or an index and a view; drawn_views.py, the view of a key without
                     one
items.py             what a dataset returns for a key; sample_keys.py, where a stream's samples carry their own
map_style.py         whether what is given is a dataset at all; subsets.py, which samples of the cached data it has, and
                     whether views lie within it
checks.py            whether labels and inputs are those of rows: said, or refused with the sample and both values;
                     expected_batches.py, what is recorded of several batches at once
same_input.py        whether another layout or dtype holds the same input
same_views.py        whether the views of a dataset are those of a cache; class_names.py, whether its classes are
"""
