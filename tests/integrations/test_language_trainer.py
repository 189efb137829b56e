"""A causal student under the Trainer of transformers: the loss of an update is that of all its positions, whatever the
batches; evaluation is `measure`; two processes; what is refused.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers import language
from tests.helpers.extras import needs
from tests.integrations.launching import TORCHRUN, launch
from tests.integrations.trainer_arguments import PLAIN

pytestmark = needs("transformers", "accelerate")


def training_set(folder: Path, layout: dict[str, Any] | None = None, **options: Any) -> Any:
    from decant.encodings import Sparse
    from decant.language import TokenDataset, TokenSamples, cache_logits, tokenise

    corpus = tokenise(language.sentences(26), language.tokenizer(), folder / "texts.tokens")
    samples = TokenSamples(corpus, **(layout or {"max_length": 64}))
    teacher = language.llama(352)
    cache = cache_logits(teacher, samples, folder / "teacher.h5", encoding=Sparse(16), show_progress=False)
    return TokenDataset(samples, cache, **options)


def trainer(folder: Path, train: Any, student: Any = None, **options: Any) -> Any:
    from transformers import TrainingArguments

    from decant.integrations.transformers import TokenDistillationTrainer

    usual = {**PLAIN, "learning_rate": 0.05, "num_train_epochs": 1}
    args = TrainingArguments(str(folder / "out"), **{**usual, **options})
    student = language.llama(344, seed=1, width=16) if student is None else student
    return TokenDistillationTrainer(student, args, train_dataset=train, eval_dataset=train)


def logged(run: Any, name: str) -> torch.Tensor:
    return torch.tensor([entry[name] for entry in run.state.log_history if "loss" in entry])


def test_accumulated_batches_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """Batches have other numbers of positions, and the last update has fewer samples."""
    train = training_set(tmp_path)
    runs = []
    for steps in (1, 4):
        run = trainer(
            tmp_path, train, gradient_accumulation_steps=steps, per_device_train_batch_size=8 // steps
        )
        run.train()
        runs.append(run)
    for name in ("loss", "grad_norm"):
        one, four = (logged(run, name) for run in runs)
        assert len(one) == 4
        torch.testing.assert_close(one, four, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(*(run.model.state_dict().values() for run in runs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    one = runs[0]
    torch.testing.assert_close(
        logged(one, "loss"),
        0.1 * logged(one, "hard_loss") + 0.9 * logged(one, "soft_loss"),
        rtol=1e-3,
        atol=1e-4,
    )


def test_evaluation_measures_the_student(tmp_path: Path) -> None:
    from decant.language import measure

    train = training_set(tmp_path)
    run = trainer(tmp_path, train, eval_strategy="epoch")
    run.train()
    found = measure(run.model, train.samples, train.cache, show_progress=False)
    names = ("perplexity", "kl", "accuracy", "agreement", "calibration_error")
    expected = {"loss": math.log(found.perplexity), **{name: getattr(found, name) for name in names}}
    assert len({f"{value:.4f}" for value in expected.values()}) == len(expected)
    entry = next(entry for entry in run.state.log_history if "eval_loss" in entry)
    of_one = run.evaluate({"one": train})
    for name, value in expected.items():
        assert entry[f"eval_{name}"] == of_one[f"eval_one_{name}"] == pytest.approx(value, rel=1e-3), name


def test_the_terms_are_those_that_evaluation_finds_of_the_same_weights(tmp_path: Path) -> None:
    """Which makes its batches, places and logits in a way of its own."""
    train = training_set(tmp_path)
    run = trainer(tmp_path, train, learning_rate=0.0, logging_strategy="epoch", eval_strategy="epoch")
    run.train()
    terms = next(entry for entry in run.state.log_history if "hard_loss" in entry)
    entry = next(entry for entry in run.state.log_history if "eval_loss" in entry)
    assert terms["hard_loss"] == pytest.approx(entry["eval_loss"], rel=1e-4)
    assert terms["soft_loss"] == pytest.approx(entry["eval_kl"], rel=1e-4)


def test_samples_in_one_row_without_padding_give_the_same_loss(tmp_path: Path) -> None:
    from transformers import DataCollatorWithFlattening

    losses = []
    for options in ({}, {"collator": DataCollatorWithFlattening()}, {"padding_side": "left"}):
        run = trainer(tmp_path, training_set(tmp_path, **options))
        run.model.config.use_cache = True  # with one, networks see all samples of a row as one
        run.train()
        losses.append(logged(run, "loss"))
    for other in losses[1:]:
        torch.testing.assert_close(losses[0], other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["Opt", "Bloom"])
def test_a_student_that_does_not_keep_samples_of_one_row_apart_is_refused(kind: str, tmp_path: Path) -> None:
    import transformers

    from decant.pipeline.errors import ModelError

    if kind == "Opt":
        sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config: Any = transformers.OPTConfig(vocab_size=344, word_embed_proj_dim=16, **sizes)
        student: Any = transformers.OPTForCausalLM(config)
    else:
        student = transformers.BloomForCausalLM(
            transformers.BloomConfig(vocab_size=344, hidden_size=16, n_layer=1, n_head=2)
        )
    collator = transformers.DataCollatorWithFlattening()
    run = trainer(tmp_path, training_set(tmp_path, collator=collator), student, max_steps=1)
    with pytest.raises(ModelError, match="does not keep samples apart that are in one row"):
        run.train()
    assert run.model.training


def test_a_student_that_sees_the_padding_in_front_of_a_sample_is_refused(tmp_path: Path) -> None:
    """RWKV ignores attention_mask; behind the sample it is no matter."""
    import transformers

    from decant.pipeline.errors import ModelError

    sizes = {"hidden_size": 16, "attention_hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    student = transformers.RwkvForCausalLM(transformers.RwkvConfig(vocab_size=344, **sizes))
    run = trainer(tmp_path, training_set(tmp_path, padding_side="left"), student, max_steps=1)
    with pytest.raises(ModelError, match="RwkvForCausalLM: sees the padding in front of a sample"):
        run.train()
    trainer(tmp_path, training_set(tmp_path), student, max_steps=1).train()


def test_a_student_that_counts_by_the_mask_is_given_no_positions(tmp_path: Path) -> None:
    """Where samples begin is said of every batch that is padded in front, and not every network takes it."""

    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = language.llama(344, seed=1, width=16)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
            return self.inner(input_ids, attention_mask, position_ids=positions).logits

    losses = []
    for side in ("right", "left"):
        run = trainer(tmp_path, training_set(tmp_path, padding_side=side), Counts(), max_steps=2)
        run.train()
        losses.append(logged(run, "loss"))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-5)


def test_what_is_doubtful_of_a_student_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mixture of experts whose loss is left out, and many more outputs than there are tokens."""
    import transformers

    forget_what_was_said()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MixtralConfig(
        vocab_size=1500, num_key_value_heads=1, num_local_experts=2, output_router_logits=True, **sizes
    )
    run = trainer(tmp_path, training_set(tmp_path), transformers.MixtralForCausalLM(config), max_steps=1)
    run.train()
    said = capsys.readouterr().err
    assert said.count("the loss that balances its experts is left out") == 1
    assert said.count("MixtralForCausalLM: has 1,500 outputs, and the tokenizer of the texts 340 tokens") == 1


def gemma(seed: int = 1) -> Any:
    """A tied head and a soft cap, of more outputs than there are tokens."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    more = {"num_attention_heads": 2, "num_key_value_heads": 1, "final_logit_softcapping": 3.0}
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=344, pad_token_id=0, **sizes, **more))


def of_ones_own(*batch: Any) -> Any:
    from decant.objectives import SparseJS

    return SparseJS(alpha=0.7)(*batch)


@pytest.mark.parametrize(
    ("kind", "name"), [("padded vocabulary", "sparse_kd"), ("soft cap", "SparseJS")]
)  # in bfloat16
def test_without_logits_of_all_places_it_is_the_same_training(tmp_path: Path, kind: str, name: str) -> None:
    """An objective that is wrapped is a function of one's own, whose logits are those of all places."""
    from decant import objectives

    train, runs = training_set(tmp_path), []
    given: Any = objectives.sparse_kd if name == "sparse_kd" else objectives.SparseJS(alpha=0.7)
    whole: Any = (lambda *batch: given(*batch)) if name == "sparse_kd" else of_ones_own
    for objective in (given, whole):
        student = gemma() if kind == "soft cap" else None
        run = trainer(
            tmp_path, train, student, max_steps=3, gradient_accumulation_steps=2, bf16=kind == "soft cap"
        )
        run.objective, widths = objective, set[int]()
        run.model.get_output_embeddings().register_forward_hook(
            lambda head, given, output, widths=widths: widths.add(output.shape[-1])
        )
        run.train()
        assert run.model.training, "also after the first tokens, by which the head was found"
        runs.append((run, widths))
    (narrow, one), (full, all_of_them) = runs
    close = {"rtol": 2e-2, "atol": 1e-3} if kind == "soft cap" else {"rtol": 1e-4, "atol": 1e-5}
    assert min(one) == 1, "and once all, to find the head"
    assert all_of_them == {344}
    for entry in ("loss", "grad_norm", "hard_loss", "soft_loss"):
        torch.testing.assert_close(logged(narrow, entry), logged(full, entry), **close)
    for ours, theirs in zip(*(run.model.state_dict().values() for run in (narrow, full)), strict=True):
        torch.testing.assert_close(ours, theirs, **close)


def test_two_processes_give_the_loss_and_weights_of_one(tmp_path: Path) -> None:
    training_set(tmp_path)
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tests.integrations.test_language_trainer import trainer, training_set\n"
        "folder = Path(sys.argv[1])\n"
        "run = trainer(folder, training_set(folder), per_device_train_batch_size=int(sys.argv[2]), max_steps=2)\n"
        "run.train()\n"
        "if run.accelerator.is_main_process:\n"
        "    said = [(entry['loss'], entry['hard_loss']) for entry in run.state.log_history if 'loss' in entry]\n"
        "    torch.save({**run.model.state_dict(), 'said': torch.tensor(said)}, sys.argv[3])\n"
    )
    one, two = tmp_path / "one.pt", tmp_path / "both.pt"
    launch(sys.executable, str(script), str(tmp_path), "8", str(one), cwd=tmp_path)
    launch(*TORCHRUN, str(script), str(tmp_path), "4", str(two), cwd=tmp_path)
    ours, theirs = torch.load(one), torch.load(two)
    torch.testing.assert_close(ours.pop("said"), theirs.pop("said"), rtol=1e-3, atol=1e-3)
    start = language.llama(344, seed=1, width=16).state_dict()
    moved = max(float((ours[name] - start[name]).abs().max()) for name in ours)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert apart < 1e-3 * moved, (apart, moved)


def test_what_changes_the_loss_beside_the_objective_is_refused(tmp_path: Path) -> None:
    from transformers import default_data_collator

    from decant.integrations.transformers import TokenDistillationTrainer
    from decant.pipeline.errors import DataError, ModelError, RecipeError

    student, train = language.llama(344, width=16), training_set(tmp_path)
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"data_collator": default_data_collator}, RecipeError, "data_collator: belongs to the dataset"),
        ({"compute_loss_func": sum}, RecipeError, "compute_loss_func"),
        ({"train_dataset": ["a text"]}, DataError, "expected decant.language.TokenDataset, found list"),
        ({"eval_dataset": {"one": [1]}}, DataError, "expected decant.language.TokenDataset, found list"),
    ]
    for options, kind, said in cases:
        with pytest.raises(kind, match=said):
            TokenDistillationTrainer(student, **{"train_dataset": train, **options})
    with pytest.raises(
        ModelError, match="knows 300 tokens, and the teacher's rows are of 340; give it a row"
    ):
        TokenDistillationTrainer(language.llama(300, width=16), train_dataset=train)


def test_a_student_that_does_not_name_its_first_layer_is_taken(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    from decant.integrations.transformers import TokenDistillationTrainer

    class Unnamed(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def get_input_embeddings(self) -> Any:
            raise NotImplementedError("please override in the subclass")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.network(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)

    options = TrainingArguments(str(tmp_path / "out"), max_steps=1, **PLAIN)
    student = Unnamed(language.llama(344, seed=1, width=16))
    trainer = TokenDistillationTrainer(student, args=options, train_dataset=training_set(tmp_path))
    assert math.isfinite(trainer.train().training_loss)


def test_a_student_may_keep_what_it_computed_in_a_call_that_needs_no_gradient(tmp_path: Path) -> None:
    """As angles of positions, which many models make in their first call, and again for a longer text."""

    class Keeping(torch.nn.Module):
        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network, self.kept = network, torch.empty(0)
            self.get_input_embeddings = network.get_input_embeddings
            self.get_output_embeddings = network.get_output_embeddings

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            if len(self.kept) < input_ids.shape[1]:
                self.kept = torch.arange(float(input_ids.shape[1]))[:, None].cos()
            states = self.get_input_embeddings()(input_ids) * self.kept[: input_ids.shape[1]]
            return self.network(inputs_embeds=states, attention_mask=attention_mask, use_cache=False)

    student = Keeping(language.llama(344, seed=1, width=16))
    run = trainer(tmp_path, training_set(tmp_path), student, eval_strategy="steps", eval_steps=1, max_steps=2)
    run.train()
    assert run._without_head.why_not is None
    assert len(logged(run, "loss")) == 2
