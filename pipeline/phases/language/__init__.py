"""The phases of a recipe of a language model: texts → teacher → a cache with a row for each token → students.

sources.py       where the texts of each part come from;  named_parts.py  parts by name
texts.py         the tokens of a recipe, and the samples of each part
plan.py          folders and caches
networks.py      the networks, and the weights that they begin with;  finished_teacher.py  a teacher that is there
teacher.py       phase zero;  served_teacher.py  one behind a server
teacher_pass.py  phase one;  served_pass.py  the same of a server;  looking.py  what a few of the teacher's answers say
student.py       phase two;  job.py  the training of one network;  measuring.py  its metrics
evaluate.py      finished networks, measured again
"""
