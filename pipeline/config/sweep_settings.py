"""The section `[sweep]` of a recipe. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from decant.pipeline.config.sections import Count, Section


class SweepSettings(Section):
    """`[sweep]`: which settings of the student `decant sweep` varies, and how; its options go before these."""

    over: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """What is varied, as `--over` takes it: `"student.lr=log:0.01..0.3"`, `"student.objective.temperature=1,2,4,8"`."""
    trials: Count | None = None
    """How many students are trained to choose from; None is 20, or the size of the grid."""
    seeds: Count = 3
    """Fresh students of the best settings, and of the baseline's, that are measured on the test part."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """How settings are drawn: by what did well before (Bergstra et al., 2011), at random, or every combination."""
    pruner: Literal["none", "hyperband"] = "none"
    """Whether trials that fall behind in the metric of their epochs are stopped early (Li et al., 2018)."""
    metric: Annotated[str, Field(min_length=1)] | None = None
    """What students are chosen by on the validation part, as it is called in `metrics.jsonl`: `"kl"`, `"loss"`; None is
    what networks are compared by, as `"top1"`, of a language model `"perplexity"`."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Decides which settings are drawn."""
