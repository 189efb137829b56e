"""A causal student under TRL's SFTTrainer: the loss and weights of the Trainer of transformers, adapters of PEFT, two
processes; what would change the tokens is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import language
from tests.helpers.extras import needs
from tests.integrations import test_language_trainer as of_transformers
from tests.integrations.launching import TORCHRUN, launch
from tests.integrations.test_language_trainer import logged, training_set
from tests.integrations.trainer_arguments import PLAIN

pytestmark = needs("transformers", "accelerate", "datasets", "trl", "peft")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # TRL counts its users


def trainer(folder: Path, train: Any, student: Any = None, **options: Any) -> Any:
    from trl import SFTConfig

    from decant.integrations.trl import SFTDistillationTrainer

    usual = {**PLAIN, "learning_rate": 0.05, "num_train_epochs": 1, "bf16": False}
    given = {name: options.pop(name) for name in ("peft_config", "eval_dataset") if name in options}
    args = SFTConfig(str(folder / "out"), **{**usual, **options})
    student = language.llama(344, seed=1, width=16) if student is None else student
    before = args.to_dict()
    made = SFTDistillationTrainer(student, args, train_dataset=train, **given)
    assert args.to_dict() == before, "the user's own are left as they are"
    return made


def test_it_trains_as_the_trainer_of_transformers_does_whatever_the_batches(tmp_path: Path) -> None:
    """Accumulated batches without padding, made by a collator of TRL's, of samples with several documents."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = {"rows": "packed", "max_length": 40}
    expected = of_transformers.trainer(tmp_path, training_set(tmp_path, rows))
    expected.train()
    flat = training_set(tmp_path, rows, collator=DataCollatorForLanguageModeling(0, padding_free=True))
    found = trainer(tmp_path, flat, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    found.train()
    for name in ("loss", "grad_norm", "hard_loss"):
        torch.testing.assert_close(logged(found, name), logged(expected, name), rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(*(run.model.state_dict().values() for run in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_adapters_learn_and_are_measured_with_their_network(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from decant.language import measure

    train = training_set(tmp_path)
    adapters = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False)
    run = trainer(
        tmp_path, train, peft_config=adapters, eval_dataset=train, eval_strategy="epoch", learning_rate=1.0
    )
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    after = run.model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if "lora_" in name or "modules_to_save" in name}
    entry = next(entry for entry in run.state.log_history if "eval_kl" in entry)
    found = measure(run.model.merge_and_unload(), train.samples, train.cache, show_progress=False)
    assert entry["eval_kl"] == pytest.approx(found.kl, rel=1e-3)
    on_head = get_peft_model(
        language.llama(344, seed=1, width=16), LoraConfig(target_modules=["lm_head"], init_lora_weights=False)
    )
    adapted = measure(on_head, train.samples, train.cache, show_progress=False)
    plain = measure(language.llama(344, seed=1, width=16), train.samples, train.cache, show_progress=False)
    merged = measure(on_head.merge_and_unload(), train.samples, train.cache, show_progress=False)
    assert adapted.kl == pytest.approx(merged.kl, rel=1e-3)
    assert adapted.kl != pytest.approx(plain.kl, rel=1e-2)


def test_two_processes_give_the_weights_of_one(tmp_path: Path) -> None:
    train = training_set(tmp_path)
    one = trainer(tmp_path, train, max_steps=2, gradient_checkpointing=False)
    start = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.train()
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from tests.integrations.test_trl import trainer, training_set\n"
        "folder, options = Path(sys.argv[1]), dict(max_steps=2, gradient_checkpointing=False)\n"
        "run = trainer(folder, training_set(folder), per_device_train_batch_size=4, **options)\n"
        "run.train()\n"
        "if run.accelerator.is_main_process:\n"
        "    torch.save(run.accelerator.unwrap_model(run.model).state_dict(), folder / 'both.pt')\n"
    )
    launch(*TORCHRUN, str(script), str(tmp_path), cwd=tmp_path)
    ours, theirs = one.model.state_dict(), torch.load(tmp_path / "both.pt")
    moved = max(float((ours[name] - start[name]).abs().max()) for name in ours)
    apart = max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
    assert apart < 1e-3 * moved, (apart, moved)


def test_what_would_change_the_tokens_or_the_loss_is_refused(tmp_path: Path) -> None:
    from datasets import Dataset
    from transformers import TrainingArguments
    from trl import SFTConfig

    from decant.integrations.trl import SFTDistillationTrainer
    from decant.pipeline.errors import DataError, RecipeError

    train = training_set(tmp_path)
    longest = int(train.samples.lengths.max())
    assert trainer(tmp_path, train, max_length=longest).args.max_length == longest
    options: list[tuple[dict[str, Any], str]] = [
        ({"packing": True}, r"SFTConfig\.packing: .* TokenSamples\(…, rows=\"packed\"\)"),
        ({"padding_free": True, "max_length": None}, r"SFTConfig\.padding_free: .*collator=DataCollatorWith"),
        ({"eval_packing": True}, r"SFTConfig\.eval_packing: .* TokenSamples\(…, rows=\"packed\"\)"),
        ({"pad_to_multiple_of": 8}, r"SFTConfig\.pad_to_multiple_of: .*collator=…"),
        (
            {"chat_template_path": "a.jinja"},
            r"SFTConfig\.chat_template_path: .* before decant.language.tokenise",
        ),
        (
            {"max_length": longest - 1},
            rf"SFTConfig\.max_length: is {longest - 1}, and samples have up to {longest}",
        ),
        ({"completion_only_loss": True}, r"completion_only_loss: every token .* targets=\"assistant\""),
        ({"assistant_only_loss": True}, r"assistant_only_loss: every token .* targets=\"assistant\""),
        ({"loss_type": "dft"}, r"SFTConfig\.loss_type: is 'dft', and the loss is the objective"),
        ({"eos_token": "<|user|>"}, r"SFTConfig\.eos_token"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: is not used"),
    ]
    for settings, said in options:
        with pytest.raises(RecipeError, match=said):
            trainer(tmp_path, train, **settings)
    table = Dataset.from_dict({"input_ids": [[1, 2]]})
    few = training_set(tmp_path / "few", {"max_length": 12})
    few_tokens = int(few.samples.lengths.max())
    here = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"train_dataset": table}, DataError, "expected decant.language.TokenDataset, found Dataset"),
        ({"train_dataset": None}, DataError, "expected decant.language.TokenDataset, found NoneType"),
        (
            {
                "train_dataset": few,
                "args": SFTConfig(max_length=few_tokens, **here),
                "eval_dataset": {"all": train},
            },
            RecipeError,
            f"max_length: is {few_tokens}, and samples have up to {longest} tokens",
        ),
        ({"eval_dataset": {"one": table}}, DataError, "expected decant.language.TokenDataset, found Dataset"),
        ({"data_collator": list}, RecipeError, "data_collator: belongs to the dataset"),
        ({"compute_metrics": len}, RecipeError, "compute_metrics: is not used"),
        ({"formatting_func": str}, RecipeError, "formatting_func: texts are tokenised by"),
        (
            {"args": TrainingArguments(str(tmp_path))},
            RecipeError,
            "expected trl.SFTConfig, found TrainingArg",
        ),
        (
            {"processing_class": language.tokenizer(seed=5)},
            DataError,
            "processing_class: is another tokenizer",
        ),
    ]
    args = SFTConfig(**here)
    for given, kind, said in wrong:
        with pytest.raises(kind, match=said):
            SFTDistillationTrainer(
                language.llama(344, width=16),
                **{"args": args, "train_dataset": train, **given},
            )


def test_masks_agree_with_the_targets_of_the_texts(tmp_path: Path) -> None:
    from decant.encodings import Sparse
    from decant.language import TokenDataset, TokenSamples, cache_logits, tokenise
    from decant.pipeline.errors import RecipeError

    rows = [{"prompt": one, "completion": f" {one}"} for one in language.sentences(8)]
    corpus = tokenise(rows, language.tokenizer(), tmp_path / "texts.tokens", targets="assistant")
    samples = TokenSamples(corpus, max_length=64)
    cache = cache_logits(language.llama(352), samples, tmp_path / "teacher.h5", encoding=Sparse(16))
    train = TokenDataset(samples, cache)
    assert (
        trainer(tmp_path, train, completion_only_loss=True, assistant_only_loss=True).train_dataset is train
    )
    with pytest.raises(
        RecipeError, match="completion_only_loss: is False, and of these texts completions alone"
    ):
        trainer(tmp_path, train, completion_only_loss=False)
