"""Files that several processes share: replaced or filled in place, locked, used and removed.

opening.py    opening regular files alone, and to write none that a link leads to
files.py      replacing a file in one step; reading, writing, reserving and syncing, with errors that say what to do
drafts.py     what is written beside the name that it is to have
locks.py      the locks between processes; flock.py, the lock of an open file
mapped.py     mapped files, and what may happen to them; unchanged.py, whether they are still what was read;
              bus_errors.py, reading what can no longer be read
system.py     what only POSIX has, and what stands in for it elsewhere
blockfile.py  files of checksummed blocks: filled in place, resumed; block_layout.py, where their blocks lie;
              block_checks.py, whether these are as they were written; span_checks.py, many of them together
redaction.py  passwords and tokens left out of what is written
checksum.py   CRC-32, and what a SHA-256 looks like
partial.py    the unfinished file of a cache: its name, who may write into it, how it is published
joint.py      an unfinished file that several processes write at the same time
synced.py     which blocks of it are on the disk
usage.py      who uses a published file

Nothing in here knows what is in a file. `pipeline` writes its own files with it: weights, results, checkpoints, packs.
"""
