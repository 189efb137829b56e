"""The networks of a recipe of a language model: their specs, and the weights that they begin with."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from decant.pipeline.config.language_settings import CUT
from decant.pipeline.config.settings import Network
from decant.pipeline.corpus import load_tokenizer, tokenizer_identity
from decant.pipeline.errors import DataError, WeightsError
from decant.pipeline.language.loading import load_causal_network
from decant.pipeline.language.students import take_layers
from decant.pipeline.networks.causal import ELSEWHERE, specify_causal
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.language.finished_teacher import load_teacher
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.support.notices import say_once


def teacher_spec(plan: LanguagePlan) -> NetworkSpec:
    """What builds the teacher. Raises ModelError."""
    return _spec(plan, plan.settings.teacher.network, None)


def student_spec(plan: LanguagePlan) -> NetworkSpec:
    """What builds a student. Raises ModelError, and NotMadeError for layers of a teacher that is not finished."""
    network = plan.settings.student.network
    return _spec(plan, network, plan.teacher.network if network.name == CUT else None)


def initial_weights(plan: LanguagePlan, spec: NetworkSpec) -> Callable[[nn.Module], None] | None:
    """What loads the weights that a network begins with: those of a folder or the hub, or layers of its teacher. None
    where they are drawn from the seed. Raises NotMadeError where the teacher is not finished.
    """
    if spec.name == CUT:
        teacher, layers = plan.teacher, spec.args["layers"]
        return lambda network: take_layers(network, load_teacher(teacher), layers)
    if spec.name.startswith(ELSEWHERE):
        name = spec.name.removeprefix(ELSEWHERE)

        def load(network: nn.Module) -> None:
            _say_if_of_another_tokenizer(plan, name)
            _take(network, load_causal_network(name, "float32"), name)

        return load
    return None


def _spec(plan: LanguagePlan, network: Network, teacher: NetworkSpec | None) -> NetworkSpec:
    tokenizer = plan.data.tokenizer
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    tokens = {name: getattr(tokenizer, name, None) for name in names}
    return specify_causal(network, plan.data.num_outputs, plan.data.max_length, tokens, teacher)


def _say_if_of_another_tokenizer(plan: LanguagePlan, name: str) -> None:
    """Says once of weights that they were made with another tokenizer than that of the texts, which is allowed: they
    are trained further here.
    """
    try:
        own = load_tokenizer(name)
    except DataError:
        return  # a folder of weights alone
    if tokenizer_identity(own)["vocabulary"] != tokenizer_identity(plan.data.tokenizer)["vocabulary"]:
        say_once(
            f"{name}: its weights were trained with another tokenizer than that of the texts, so the tokens mean other "
            "words to it, which training must undo; take a network of the teacher's tokenizer"
        )


def _take(network: nn.Module, loaded: nn.Module, name: str) -> None:
    """Copies weights. Raises WeightsError where they do not fit, as of a folder that has changed."""
    try:
        network.load_state_dict(loaded.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"{name}: its weights are not of its configuration ({error})") from error
