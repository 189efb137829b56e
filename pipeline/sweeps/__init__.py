"""Sweeps: many students of one cache, from which settings are chosen by the validation part.

space.py       what is varied, as `--over` says it
definition.py  what a sweep is: recipe, space and how it is searched; its folder
searches.py    the trials of one search in Optuna's journal: drawn, claimed by one process, told
sampling.py    which settings a trial gets: a function of the sweep's seed and the trial's number
students.py    a trial as an ordinary student's run
language_students.py  the same of a language model
kinds.py       which of both a sweep has
readiness.py   what a sweep needs before it begins
stages.py      the searches of a sweep one after the other: students, baseline, fresh seeds;  pruning.py  trials that
               fall behind
workers.py     processes that share a sweep
record.py      sweep.json: what report and status read
wording.py     a sweep in words
conclusion.py  the chosen settings against the baseline, on the test part
"""
