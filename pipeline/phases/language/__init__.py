"""The phases of a recipe of a language model: texts → teacher → a cache with a row for each token → students.

sources.py       where the texts of each part come from;  named_parts.py  parts by name
texts.py         the tokens of a recipe, and the samples of each part
plan.py          folders and caches
teacher.py       phase zero
cache_logits.py  phase one
student.py       phase two
evaluate.py      finished networks, measured again
"""
