"""Distillation in a training loop of one's own: views of any dataset, and the cache of any teacher.

dataset.py         `Views`;  operations.py  `decant.views`;  stages.py  the steps of a transform;  transforms.py  how
                   each is called;  seeding.py, own_generators.py  the random generators that it draws from
caching.py         `cache_logits`;  cache_identity.py  which logits are asked for, of fingerprints.py,
                   description.py, labels.py and probe.py
teacher.py         the teacher;  teacher_pass.py  its pass;  joint_pass.py  by several processes;
                   same_teacher.py  whether it still gives what a cache holds
"""

from decant.pipeline.own_loop.caching import cache_logits
from decant.pipeline.own_loop.dataset import Views

__all__ = ["Views", "cache_logits"]
