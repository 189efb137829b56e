"""Distillation losses: pure functions of (student_logits, teacher_logits, labels) that return `Terms`, and the same as
modules, `KD(alpha=0.9, temperature=4.0)`, that are called with these three. `sparse_kd` and its kin compare with
`SparseTargets`, sparse rows of a cache, and `fused_kd` with any rows without ever holding all student logits.

Logits are raw outputs (B, C), before softmax and temperature, of any float dtype. Labels are (B,) or (B, 1) integers,
−1 where there is none, or (B, C) shares of the classes, as mixup makes them; of sigmoids (B, C) floats from 0 to 1, NaN
where unknown; of a regression (B, T) floats, NaN where unknown. `sample_weights` are (B,) floats. A loss is a mean over
the batch, computed in float32, or in float64 where the logits are float64.

All raise RecipeError for logits of two shapes, DataError for labels of another kind or shape, ValueError for a
temperature of 0 or less or an alpha outside 0 to 1, TypeError for what is no tensor.

registry.py   from a recipe's `[student.objective]` to its loss;  external.py  a loss of the user's
terms.py      arguments and results;  hard_labels.py  the cross-entropy with labels
divergences.py, decoupled.py, relational.py, squared.py, transfer.py, two_teachers.py, sigmoid.py    the losses
modules.py    the same as modules
sparse/       losses of sparse rows;  fused/  losses of hidden states;  chunked.py  a last layer and its loss in one
"""

from decant.pipeline.data.samples import NO_LABEL
from decant.pipeline.objectives.decoupled import dkd, nkd
from decant.pipeline.objectives.divergences import ce_plus_kl, js, kd, rkl, soft_ce, softened_kl
from decant.pipeline.objectives.fused.hidden_targets import HiddenTargets, TeacherHead
from decant.pipeline.objectives.fused.losses import FusedTargets, fused_ce_plus_kl, fused_kd
from decant.pipeline.objectives.hard_labels import cross_entropy, smoothed_labels
from decant.pipeline.objectives.modules import (
    DIST,
    DKD,
    JS,
    KD,
    NKD,
    RKL,
    CEPlusKL,
    General,
    LabelSmoothing,
    LogitMSE,
    Objective,
    Regression,
    SigmoidKD,
    SigmoidMSE,
    SoftCE,
    TransferData,
    TransferKnowledge,
    TransferModel,
)
from decant.pipeline.objectives.registry import FUNCTIONS, build, from_cache, from_labels, is_fixed
from decant.pipeline.objectives.relational import dist
from decant.pipeline.objectives.sigmoid import binary_cross_entropy, sigmoid_kd, sigmoid_mse
from decant.pipeline.objectives.sparse.losses import (
    sparse_ce_plus_kl,
    sparse_js,
    sparse_kd,
    sparse_mse,
    sparse_rkl,
    sparse_soft_ce,
)
from decant.pipeline.objectives.sparse.modules import (
    SparseCEPlusKL,
    SparseJS,
    SparseKD,
    SparseMSE,
    SparseObjective,
    SparseRKL,
    SparseSoftCE,
)
from decant.pipeline.objectives.sparse.targets import SparseTargets
from decant.pipeline.objectives.squared import logit_mse, regression, squared_error
from decant.pipeline.objectives.terms import Loss, Terms, standardized
from decant.pipeline.objectives.transfer import transfer_data, transfer_knowledge, transfer_model
from decant.pipeline.objectives.two_teachers import general

__all__ = [
    "DIST",
    "DKD",
    "FUNCTIONS",
    "JS",
    "KD",
    "NKD",
    "NO_LABEL",
    "RKL",
    "CEPlusKL",
    "FusedTargets",
    "General",
    "HiddenTargets",
    "LabelSmoothing",
    "LogitMSE",
    "Loss",
    "Objective",
    "Regression",
    "SigmoidKD",
    "SigmoidMSE",
    "SoftCE",
    "SparseCEPlusKL",
    "SparseJS",
    "SparseKD",
    "SparseMSE",
    "SparseObjective",
    "SparseRKL",
    "SparseSoftCE",
    "SparseTargets",
    "TeacherHead",
    "Terms",
    "TransferData",
    "TransferKnowledge",
    "TransferModel",
    "binary_cross_entropy",
    "build",
    "ce_plus_kl",
    "cross_entropy",
    "dist",
    "dkd",
    "from_cache",
    "from_labels",
    "fused_ce_plus_kl",
    "fused_kd",
    "general",
    "is_fixed",
    "js",
    "kd",
    "logit_mse",
    "nkd",
    "regression",
    "rkl",
    "sigmoid_kd",
    "sigmoid_mse",
    "smoothed_labels",
    "soft_ce",
    "softened_kl",
    "sparse_ce_plus_kl",
    "sparse_js",
    "sparse_kd",
    "sparse_mse",
    "sparse_rkl",
    "sparse_soft_ce",
    "squared_error",
    "standardized",
    "transfer_data",
    "transfer_knowledge",
    "transfer_model",
]
