"""Losses that take the hidden states and the last layer of a student: logits of all positions never exist together.

losses.py           `fused_kd`, `fused_ce_plus_kl`: arguments, and what each row counts
batch.py            what rows are compared with: what they add to the loss, and their gradients
last_layer.py       logits of hidden states
teachers.py         what a student is compared with: sparse rows, or logits that are made of hidden states or given
hidden_targets.py   hidden states of a teacher, with the last layer that makes logits of them
"""
