"""Caches that lie elsewhere: found, fetched block by block, published, in stores that fsspec reaches and on the Hub.

addresses.py   what an address says; what of it may be shown
folder.py      what a folder of caches elsewhere can do; its errors, and trying again
fsspec_folder.py, s3.py, gcs.py, http.py, hub.py, local_folder.py    such folders
opening.py     the folder of an address
head.py        what is read of a file before the rest is asked for: header, seal, checksums
mirror.py      the local copies: where they lie, how much they may take, what goes first
copy_files.py  the file of a local copy: made, opened, named
partial_copy.py  a local copy that is not whole yet: which blocks are in it
filling.py     fetches blocks into it, several at once;  ranges.py  which bytes are asked for together
fetching.py    whole files into the mirror
lazily.py      files whose blocks are fetched when they are read
publishing.py  files from here to there; building.py, who builds what
card.py        the README of a dataset on the Hub
progress.py    who shows how far a transfer is;  threads.py  threads that ask a store, and are not waited for at the end

Nothing in here reads rows: `decant.cache.reader` and `decant.cache.store` do, and import from here.
"""
