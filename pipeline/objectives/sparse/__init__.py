"""Losses of sparse rows: what a cache holds of some outputs of a teacher, against all of a student's.

targets.py   what a batch of rows says of the teacher's softmax, at a temperature;  given_rows.py  whether rows can be
rows.py      the divergence of one row, from the stored outputs and the mass of the others
losses.py    the objectives of a batch: `sparse_kd` and its kin
modules.py   these as modules of PyTorch
"""
