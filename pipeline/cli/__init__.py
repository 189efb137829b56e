"""The command line. A command parses its options, calls one function and prints the result; torch, NumPy and h5py are
imported when it runs.

main.py        the group `decant`, and how errors are shown
phases.py      decant teacher, cache-logits, student, evaluate; what they say of networks and caches:
               made_networks.py, made_caches.py
status.py      decant status
report.py      decant report
deploy.py      decant export, predict
cache/         decant cache: ls, info, diff, path (show.py); verify (verify.py); import, export, merge, gc (convert.py)
options.py     options that commands share; tables and JSON
completion.py  shell completion of recipes, settings, caches and runs
"""
