"""Logits and rows that other programs write or read: imported as caches, exported as arrays.

logits.py         tables of logits: import_logits, export_logits; probabilities.py, where they are probabilities
imported_rows.py  a cache of arrays of rows: import_rows; row_arrays.py, what such arrays must be; shifted_rows.py,
                  whether they are of the tokens beside
row_files.py      rows as arrays of a .npz file: export_rows
vllm_answers.py   arrays of rows from answers of vLLM
distillkit.py     the same from files of DistillKit; distillkit_compression.py, how these are packed; list_columns.py,
                  how they are read
"""
