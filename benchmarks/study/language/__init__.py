"""One small language model taught in every way, everything else alike: what each kind of cache costs and gives.

texts.py     English prose of Debian's packages, as documents
phase_one.py the teacher's one pass, and a cache of each encoding made of it
encoding.py  the rows of all encodings at once
arms.py      the ways of teaching, on two schedules
training.py  one student, taught in one way with one seed
jobs.py      runs side by side
table.py     the figures as a table
command.py   `python -m benchmarks.study --recipe language-model`
"""
