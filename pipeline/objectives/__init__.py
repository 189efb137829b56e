"""Distillation losses: pure functions of (student_logits, teacher_logits, labels) that return `Terms`."""

from pipeline.data.samples import NO_LABEL
from pipeline.objectives.building import FUNCTIONS, build, from_cache, from_labels
from pipeline.objectives.decoupled import dkd, nkd
from pipeline.objectives.hard import cross_entropy, smoothed_labels
from pipeline.objectives.knowledge import general
from pipeline.objectives.relational import dist
from pipeline.objectives.softened import ce_plus_kl, js, kd, rkl, soft_ce, softened_kl
from pipeline.objectives.squared import logit_mse, regression, squared_error
from pipeline.objectives.terms import Loss, Terms, standardized
from pipeline.objectives.transfer import transfer_data, transfer_knowledge, transfer_model

__all__ = [
    "FUNCTIONS",
    "NO_LABEL",
    "Loss",
    "Terms",
    "build",
    "ce_plus_kl",
    "cross_entropy",
    "dist",
    "dkd",
    "from_cache",
    "from_labels",
    "general",
    "js",
    "kd",
    "logit_mse",
    "nkd",
    "regression",
    "rkl",
    "smoothed_labels",
    "soft_ce",
    "softened_kl",
    "squared_error",
    "standardized",
    "transfer_data",
    "transfer_knowledge",
    "transfer_model",
]
