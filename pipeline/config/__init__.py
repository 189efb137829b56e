"""A recipe: a TOML file, read into frozen settings, with every mistake named by its path.

recipe.py             the file, read, overridden and checked;  messages.py  what is wrong with it, in words;
                      toml_values.py  what to write for a value that is not TOML
settings.py           a whole recipe;  sections.py  what every section is made of;  absent.py  keys of other programs
data_settings.py, views_settings.py, training_settings.py, cache_settings.py, sweep_settings.py    a section each
server_settings.py    a teacher behind a server;  language_settings.py  what a recipe of a language model may say
augmentations.py      the operations of `views.augment`
objectives.py         what `[student.objective]` may say;  annealing.py  values that follow a schedule;
                      catalogue.py  the table of `decant objectives`
tasks.py              the tasks, and the metrics of each
"""
