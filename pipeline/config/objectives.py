"""What `[student.objective]` may say: one frozen class an objective. Its docstring is the formula, and it names the
function that computes it. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    WrapValidator,
    model_serializer,
)

from decant.pipeline.config.annealing import Share, Temperature, Weight
from decant.pipeline.config.sections import Section, kinds, one_of
from decant.pipeline.config.tasks import SIGMOID, Task

NotNegative = Annotated[float, Field(ge=0)]
Divergence = Literal["kl", "ce"]
_balanced: TypeAdapter[Any] = TypeAdapter(Literal["balanced"])
_numbers: TypeAdapter[Any] = TypeAdapter(
    Annotated[tuple[NotNegative, ...], Field(strict=False, min_length=1)]
)


def _class_weights(value: Any, _: Callable[[Any], Any]) -> Any:
    """Reads one or the other, so that a mistake is named once."""
    return (_balanced if isinstance(value, str) else _numbers).validate_python(value)


ClassWeights = Annotated[Literal["balanced"] | tuple[NotNegative, ...], WrapValidator(_class_weights)]
"""A number for each class, or what makes all classes count alike."""


class Builtin(Section):
    """An objective that ships; its docstring is the formula, and its fields are arguments of its function."""

    function: ClassVar[str]
    """`module:function` in `decant.pipeline.objectives`, called with (student_logits, teacher_logits, labels,
    **settings); it returns `Terms`.
    """
    use: ClassVar[str]
    """What it is for, in a phrase."""
    source: ClassVar[str]
    """Whose it is."""
    task: ClassVar[Task] = "classification"
    """The task whose outputs it is a loss of."""
    sigmoid_function: ClassVar[str | None] = None
    """The same for tasks whose outputs have a sigmoid each; None where it is of a softmax alone."""
    separate_caches: ClassVar[bool] = False
    """Whether it is given the logits of several caches as (B, K, C) and not their mean (B, C)."""

    name: str


class Softmax(Builtin):
    """An objective that compares softmaxes."""

    standardize: bool = False
    """Whether the logits of both networks become z-scores, a row at a time, before the temperature."""
    interpolate: bool = False
    """Of a sparse cache: whether the temperature may be one that it does not declare. The mass of what it leaves out is
    then taken from the middle of what its rows prove.
    """

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A switch that is off is left out, so that a new one gives no older run another name."""
        return {
            key: value for key, value in handler(self).items() if value is not None and value is not False
        }


class KD(Softmax):
    """(1 − alpha)·CE + alpha·T²·KL(teacher ‖ student)."""

    function = "divergences:kd"
    sigmoid_function = "sigmoid:sigmoid_kd"
    use = "the usual first choice; class_weights for rare classes"
    source = "Hinton, Vinyals, Dean 2015"

    name: Literal["kd"]
    alpha: Share = 0.9
    temperature: Temperature = 4.0
    class_weights: ClassWeights | None = None
    """How much a sample counts in this loss alone, as `student.class_weights` has it for every loss."""


class CEPlusKL(Softmax):
    """CE + weight·T²·KL(teacher ‖ student)."""

    function = "divergences:ce_plus_kl"
    use = "kd with a whole cross-entropy, whose size no weight changes"
    source = "Hinton, Vinyals, Dean 2015"

    name: Literal["ce+kl"]
    weight: Weight = 1.0
    temperature: Temperature = 4.0


class SoftCE(Softmax):
    """(1 − alpha)·CE + alpha·T²·H(teacher, student)."""

    function = "divergences:soft_ce"
    use = "kd's gradients; its value includes the teacher's own entropy"
    source = "Hinton, Vinyals, Dean 2015"

    name: Literal["soft-ce"]
    alpha: Share = 0.9
    temperature: Temperature = 4.0


class LogitMSE(Builtin):
    """(1 − alpha)·CE + alpha·mean (s − t)²."""

    function = "squared:logit_mse"
    sigmoid_function = "sigmoid:sigmoid_mse"
    use = "to match logits and not only softmaxes; no temperature to choose"
    source = "Ba, Caruana 2014"

    name: Literal["mse"]
    alpha: Share = 1.0


class JS(Softmax):
    """(1 − alpha)·CE + alpha·T²·JS(teacher, student)."""

    function = "divergences:js"
    use = "bounded: a teacher that is sure and wrong costs at most T²·ln 2"
    source = "Lin 1991; Agarwal et al. 2024"

    name: Literal["js"]
    alpha: Share = 0.9
    temperature: Temperature = 4.0


class RKL(Softmax):
    """(1 − alpha)·CE + alpha·T²·KL(student ‖ teacher)."""

    function = "divergences:rkl"
    use = "a student too small for all of the teacher: it keeps to the likeliest classes"
    source = "Gu et al. 2024"

    name: Literal["rkl"]
    alpha: Share = 0.9
    temperature: Temperature = 4.0


class General(Softmax):
    """alpha·D(teacher, student) + beta·D(knowledge, student), D at T."""

    function = "two_teachers:general"
    use = "two caches, weighed one against the other: cache.from = [TEACHER, KNOWLEDGE]"
    source = "the sum of two soft targets; no T²"
    separate_caches = True

    name: Literal["general"]
    alpha: Weight = 0.5
    beta: Weight = 0.5
    temperature: Temperature = 1.0
    teacher_divergence: Divergence = "kl"
    knowledge_divergence: Divergence = "kl"


class DKD(Softmax):
    """ce_weight·CE + T²·(alpha·TCKD + beta·NCKD)."""

    function = "decoupled:dkd"
    use = "a confident teacher, whose other classes kd hardly weighs"
    source = "Zhao et al. 2022"

    name: Literal["dkd"]
    alpha: Weight = 1.0
    beta: Weight = 8.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0


class DIST(Softmax):
    """ce_weight·CE + T²·(beta·(1 − ρ of rows) + gamma·(1 − ρ of columns))."""

    function = "relational:dist"
    use = "a teacher much stronger than the student: only relations are matched; large batches"
    source = "Huang et al. 2022"

    name: Literal["dist"]
    beta: Weight = 2.0
    gamma: Weight = 2.0
    temperature: Temperature = 4.0
    ce_weight: Weight = 1.0


class NKD(Softmax):
    """ce_weight·CE − t_y·log s_y + gamma·T²·H(t̂, ŝ) of the other classes."""

    function = "decoupled:nkd"
    use = "kd with target and other classes apart; adds to a whole cross-entropy"
    source = "Yang et al. 2023"

    name: Literal["nkd"]
    gamma: Weight = 1.5
    temperature: Temperature = 1.0
    ce_weight: Weight = 1.0


class TransferKnowledge(Softmax):
    """H(teacher, student) at T."""

    function = "transfer:transfer_knowledge"
    use = "from the teacher alone, no labels"
    source = "soft-ce without T² and CE"

    name: Literal["soft-transfer-knowledge"]
    temperature: Temperature = 0.5


class TransferData(Softmax):
    """−[argmax t = y]·log softmax(s/T)[y]."""

    function = "transfer:transfer_data"
    use = "the teacher as a filter of labels that may be wrong"
    source = "cross-entropy under an indicator mask"

    name: Literal["soft-transfer-data"]
    temperature: Temperature = 0.5


class TransferModel(Softmax):
    """weight·CE + (1 − weight)·soft-transfer-data."""

    function = "transfer:transfer_model"
    use = "all labels, and once more those that the teacher confirms"
    source = "the mean of the two"

    name: Literal["soft-transfer-model"]
    weight: Share = 0.5
    temperature: Temperature = 0.5


class LabelSmoothing(Builtin):
    """−Σ ((1 − smoothing)·y + smoothing/C)·log s."""

    function = "hard_labels:smoothed_labels"
    use = "no teacher: what soft targets of no knowledge give, for comparison"
    source = "Szegedy et al. 2016"

    name: Literal["ls"]
    smoothing: Share = 0.1


class Regression(Builtin):
    """mean (s − t)² + weight·mean (s − y)²."""

    function = "squared:regression"
    use = "outputs that are numbers and not classes"
    source = "mse for both"
    task = "regression"

    name: Literal["regression"]
    weight: Weight = 1.0


class Custom(BaseModel):
    """A function of the user's, `package.module:function`, and its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    name: str

    @property
    def args(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})


BUILTIN = kinds(vars(), Builtin)
"""Every objective that ships."""
_builtin: TypeAdapter[Builtin] = TypeAdapter(one_of(BUILTIN, "name"))


def _objective(value: Any, _: Callable[[Any], Any]) -> Builtin | Custom:
    """Reads a name, a table with one, or a section."""
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Custom) or (isinstance(value, dict) and ":" in str(value.get("name"))):
        return Custom.model_validate(value)
    return _builtin.validate_python(value)


if TYPE_CHECKING:
    Objective = Builtin | Custom
else:
    Objective = Annotated[one_of(BUILTIN, "name") | Custom, WrapValidator(_objective)]
"""Any of the objectives above, or a function of the user's."""


def names_for(task: Task) -> list[str]:
    """The objectives that ship for a task."""
    return [name_of(kind) for kind in BUILTIN if is_for(kind, task)]


def is_for(kind: type[Builtin], task: Task) -> bool:
    """Whether an objective is for the outputs of a task."""
    return kind.sigmoid_function is not None if task in SIGMOID else kind.task == task


def name_of(kind: type[Builtin]) -> str:
    """The name of an objective in a recipe."""
    return str(get_args(kind.model_fields["name"].annotation)[0])
