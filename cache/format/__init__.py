"""The cache file as bytes: its layout in HDF5, its blocks and their checksums, the place of each row."""
