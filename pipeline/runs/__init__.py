"""Run folders: where they lie, what a finished network leaves in them, and how it is opened again.

folders.py        the folder of a teacher or of students, from the settings that decide them
result.py         result.json: what a finished network is, and how good
saved_network.py  its weights;  saved_logits.py  its logits on the test split;  saved_recipe.py  its recipe
open.py           a finished run with its recipe, from a path
json_files.py     JSON that is replaced in one step
locks.py          one process trains a network, others are refused
notes.py          which cache belongs to which settings, and what the teacher's pass took
latency.py        the time of a forward pass;  footprint.py  its multiply-adds and memory as well
"""
