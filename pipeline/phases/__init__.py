"""The phases: teacher, cache-logits, student and evaluate, each a function of a plan and a device.

any_recipe.py    the phases of any recipe;  kinds.py  which kind one is: of samples, here, or of texts, in language/
plan.py          what a recipe leads to: its data, and where teacher, cache and students lie
datasets.py      the splits of its data, through their views;  recipe_dataset.py  one of them, for a loop of one's own
fingerprints.py  what identifies data and views, and the manifest of a cache
teacher.py       data → teacher;  given_weights.py  the weights that it begins with;
                 kept_classes.py  its outputs that are kept
initial_weights.py  files that teacher or students begin with;  balance.py  classes of different sizes
cache_logits.py  teacher × data → cache;  cache_ranks.py  by the ranks of a job;  passes.py  what it does for each kind
                 of recipe;  teacher_pass.py, views_pass.py  the teacher's pass over the data
cost.py          what a cache would cost;  compact.py  how small it may be;
                 verify.py  a cache compared with its teacher
student.py       cache × data → students;  soft_labels.py  the cache, opened and checked;  given_caches.py  files of
                 `cache.from`;  training_dataset.py  the rows of a cache joined with the data;  untrainable.py  what is
                 wrong with students, said before their teacher is made
job.py           the training of one network, for teacher and students;  finished_job.py  what it leaves
several_seeds.py the training of students of several seeds in one loop
joined_ranks.py  the ranks of a job that train one network;  students_by_rank.py  those that train whole students
attempts.py      one process trains a network, and again where its data changed;  output_checks.py  what it ends with
evaluate.py      finished networks, measured again
"""
