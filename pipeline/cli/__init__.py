"""The command line. A command parses its options, calls one function and prints the result; torch, NumPy and h5py are
imported when it runs.

main.py        the group `decant`, decant objectives, and how errors are shown; error_words.py; signals.py
init.py        decant init, which writes the files of project/
phases.py      decant teacher, cache-logits, student, evaluate; what they say of networks and caches:
               made_networks.py, made_caches.py, sizes.py
sweep.py       decant sweep
report.py      decant report
status.py      decant status
cache/         decant cache, a module or more for each kind of command
deploy.py      decant export, predict
options.py     options that commands share; tables and JSON
groups.py      the order in which help lists commands
given_paths.py  what every path on the command line is read by
completion.py  shell completion of recipes, settings, caches and runs
"""
