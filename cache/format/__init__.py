"""The cache file as bytes: its layout in HDF5, its blocks and their checksums, the place of each row.

hdf5.py       the HDF5 file: created, checked, its tables found;  tables.py  which tables there are, and where they lie
blocks.py     blocks of samples and their checksums;  batch.py  rows of some samples, as they are stored
row_marks.py  which single rows of an unfinished file are written
offsets.py    where the rows of each sample begin;  known.py  what is known of positions when a file is begun
shared_tables.py  tables that all rows share, and no block has
"""
