"""What a person types. A command parses, calls one function and words the result; nothing heavy is imported before it
runs.

phases.py   decant teacher, cache-logits, student and evaluate
status.py   decant status;  report.py  decant report;  deploy.py  decant export and predict
cache/      decant cache: show, verify, convert
options.py  what commands have in common: recipe and places, tables, JSON;  completion.py  what a shell offers
"""
