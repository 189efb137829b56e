"""Keys that users of other programs look for in a recipe: where the setting is here, or that there is none."""

from __future__ import annotations

from collections.abc import Sequence

from decant.pipeline.config.sections import Section
from decant.pipeline.config.settings import Settings

_AVERAGE = 'it is average = "ema" or "swa" of teacher or student here'
_VALIDATION = "it is data.validation here: a share of the training part, or the name of a part of its own"
_STOPPING = "it is called patience here, of teacher or student"
_EVERYWHERE = {
    **dict.fromkeys(("ema", "ema_decay", "model_ema", "use_ema", "swa", "averaging"), _AVERAGE),
    **dict.fromkeys(
        ("val", "validation", "val_split", "validation_split", "val_size", "valid", "split"), _VALIDATION
    ),
    **dict.fromkeys(("early_stopping", "early_stop", "patience"), _STOPPING),
    **dict.fromkeys(("save_best", "monitor"), 'it is keep = "best" here, of teacher or student'),
    **dict.fromkeys(("device", "gpu", "gpus"), "the device is chosen on the command line: --device"),
    **dict.fromkeys(
        ("mixup", "cutmix"), 'it is an operation of views.augment: { op = "mixup" } or { op = "cutmix" }'
    ),
}
_OF_TRAINING = {
    **dict.fromkeys(("temperature", "alpha", "loss"), "it is of a student's loss: student.objective"),
    **dict.fromkeys(("learning_rate", "base_lr"), "it is called lr here"),
    **dict.fromkeys(("scheduler", "lr_scheduler"), "it is called schedule here"),
    **dict.fromkeys(
        ("grad_clip", "clip_grad", "clip_grad_norm", "max_grad_norm"), "it is called clip_norm here"
    ),
    **dict.fromkeys(
        ("amp", "mixed_precision", "fp16", "bf16"), 'it is precision = "float16" or "bfloat16" here'
    ),
    **dict.fromkeys(
        ("accumulation_steps", "gradient_accumulation_steps", "accumulate_grad_batches"),
        "it is called accumulate here",
    ),
    **dict.fromkeys(
        ("dropout", "num_classes", "pretrained"), "it is of the network: network = { name = …, KEY = … }"
    ),
    "pos_weight": "positive answers are not weighed apart from negative ones; leave it out",
}
_TRAINED = ("teacher", "knowledge", "student")


def sections_with(key: str) -> list[str]:
    """The sections of a recipe that have a key, for who names the key alone.

    >>> sections_with("epochs"), sections_with("temperature")
    (['teacher', 'student'], ['student.objective'])
    """
    tables = {name: field.annotation for name, field in Settings.model_fields.items()}
    found = [
        name
        for name, table in tables.items()
        if isinstance(table, type)  # a section that may be missing is no type
        and issubclass(table, Section)
        and key in {field.alias or own for own, field in table.model_fields.items()}
    ]
    return found or (["student.objective"] if key in ("temperature", "alpha") else [])


def where_it_is(parents: Sequence[str | int], key: str) -> str | None:
    """What to say of a key that `parents` has not, though other programs have it; None of any other key.

    >>> where_it_is(["student"], "learning_rate")
    'it is called lr here'
    >>> where_it_is(["student"], "epohcs")
    """
    if key == "class_weights" and list(parents[:2]) == ["student", "objective"]:
        return "student.class_weights weighs the samples of this objective, as of any"
    trained = len(parents) == 1 and parents[0] in _TRAINED
    return _EVERYWHERE.get(key) or (_OF_TRAINING.get(key) if trained else None)
