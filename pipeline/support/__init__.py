"""What the rooms share: progress bars, and code that a recipe names.

plugins.py       functions that a recipe names, and extras;  modules.py  where the user's modules are;  trust.py  which
                 functions a file may have run;  source_code.py  the fingerprint of a user's code
paths.py         paths as users write them;  nested.py  settings in sections within sections;  hub.py  a name
checked_json.py  JSON that others may have written;  archives.py  zip archives;  weight_files.py  files of weights
notices.py       what is said once;  progress.py  bars;  terminal.py  text without what a terminal obeys
allocator.py     freed memory that stays with the process;  signatures.py  what a function takes
"""
