"""A student of a cache under the Trainer of transformers: views, accumulated gradients, evaluation, resumption, two
processes, images and texts, and what is refused.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import decant
from decant.cache import CacheWarning, MismatchError, SoftLabelDataset
from decant.pipeline.errors import DataError, RecipeError, WeightsError
from tests.helpers.extras import needs
from tests.integrations import watched
from tests.integrations.launching import TORCHRUN, launch
from tests.integrations.trainer_arguments import PLAIN

pytestmark = needs("transformers", "accelerate")


def arguments(folder: Path, epochs: float = 1, **options: Any) -> Any:
    from transformers import TrainingArguments

    usual = {**PLAIN, "learning_rate": 0.1}
    return TrainingArguments(str(folder / "out"), num_train_epochs=epochs, **{**usual, **options})


def trainer(folder: Path, epochs: float = 1, student: Any = None, train: Any = None, **options: Any) -> Any:
    from decant.integrations.transformers import DistillationTrainer

    student = watched.Watched(folder) if student is None else student
    return DistillationTrainer(
        student,
        arguments(folder, epochs, **options),
        objective=getattr(student, "objective", decant.objectives.kd),
        train_dataset=watched.training_set(folder) if train is None else train,
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_has_every_sample_in_its_view_and_live_logits(tmp_path: Path, workers: int) -> None:
    run = trainer(tmp_path, 4, dataloader_num_workers=workers, dataloader_persistent_workers=workers > 0)
    run.train()
    watched.assert_whole_epochs(tmp_path, 4)
    logged = next(entry for entry in run.state.log_history if "loss" in entry)
    assert logged["loss"] == pytest.approx(0.1 * logged["hard_loss"] + 0.9 * logged["soft_loss"], rel=1e-3)


@pytest.mark.parametrize("rest", [0, 4])
def test_accumulated_batches_give_the_loss_and_gradient_of_one(tmp_path: Path, rest: int) -> None:
    """With 4 samples more the last update is of one batch of 8 and one of 4."""
    found = []
    for steps in (1, 4):
        torch.manual_seed(0)
        folder = tmp_path / str(steps)
        folder.mkdir()
        samples = 32 + 8 + rest
        data = torch.utils.data.Subset(watched.training_set(folder), range(samples))
        student = nn.Sequential(nn.Flatten(), nn.Linear(192, watched.CLASSES))
        options: dict[str, Any] = {
            "gradient_accumulation_steps": steps,
            "per_device_train_batch_size": 32 // steps,
        }
        run = trainer(folder, 2, student, data, **options)
        run.train()
        losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
        gradients = [entry["grad_norm"] for entry in run.state.log_history if "loss" in entry]
        found.append((torch.tensor(losses), torch.tensor(gradients), student[1].weight.detach()))
    assert len(found[0][0]) == 4
    for one, four in zip(*found, strict=True):
        torch.testing.assert_close(one, four, rtol=1e-3, atol=1e-5)


def test_two_processes_take_every_sample_once_in_its_view(tmp_path: Path) -> None:
    watched.training_set(tmp_path)
    launch(*TORCHRUN, "-m", "tests.integrations.two_ranks", "transformers", tmp_path, cwd=tmp_path)
    watched.assert_whole_epochs(tmp_path, watched.VIEWS, ranks=2)


@pytest.mark.parametrize("stopped", [9, 12])
def test_resumed_in_an_epoch_it_goes_on_with_the_next_batch(tmp_path: Path, stopped: int) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    weights = []
    saving = {"save_strategy": "steps", "save_steps": stopped}
    for folder in (whole, parted):
        folder.mkdir()
        torch.manual_seed(0)
        if folder == parted:
            trainer(folder, 4, max_steps=stopped, **saving).train()
        run = trainer(folder, 4, **saving)
        run.train(resume_from_checkpoint=folder == parted or None)
        weights.append(run.model.net[1].weight)
    assert watched.notes(parted) == watched.notes(whole)
    assert torch.equal(*weights)


def images_of(kind: str) -> Any:
    import transformers

    if kind == "vit":
        size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=watched.CLASSES, **size)
        return transformers.ViTForImageClassification(config)
    config = transformers.MobileNetV2Config(
        image_size=8, depth_multiplier=0.25, num_labels=watched.CLASSES, finegrained_output=False
    )
    return transformers.MobileNetV2ForImageClassification(config)


@pytest.mark.parametrize("kind", ["vit", "mobilenet"])
def test_models_of_images_train_and_are_evaluated_without_logits(tmp_path: Path, kind: str) -> None:
    from decant.integrations.transformers import DistillationTrainer

    run = DistillationTrainer(
        images_of(kind),
        arguments(tmp_path, 1, eval_strategy="epoch"),
        objective=partial(decant.objectives.kd, temperature=2.0),
        train_dataset=watched.training_set(tmp_path),
        eval_dataset={"bare": watched.Pictures(20), "cached": watched.training_set(tmp_path)},
        compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()},
    )
    run.train()
    evaluated = {name: value for entry in run.state.log_history for name, value in entry.items()}
    assert {"eval_bare_loss", "eval_bare_accuracy", "eval_cached_loss"} <= set(evaluated)
    assert evaluated["eval_bare_loss"] == pytest.approx(
        float(nn.functional.cross_entropy(*predictions(run, watched.Pictures(20)))), rel=1e-4
    )


def predictions(run: Any, data: Any) -> tuple[torch.Tensor, torch.Tensor]:
    found = run.predict(data)
    return torch.tensor(found.predictions), torch.tensor(found.label_ids)


@pytest.mark.parametrize("objective", ["SigmoidKD", "Regression"])
def test_sets_without_logits_are_evaluated_by_the_loss_of_their_labels(
    tmp_path: Path, objective: str
) -> None:
    """They had the cross-entropy of classes, whatever the objective."""
    from decant.integrations.transformers import DistillationTrainer

    images, labels = torch.rand(20, 3, 8, 8), (torch.arange(100).view(20, 5) % 3 == 0).float()
    loss = {
        "SigmoidKD": nn.functional.binary_cross_entropy_with_logits,
        "Regression": nn.functional.mse_loss,
    }[objective]
    run = DistillationTrainer(
        watched.Watched(tmp_path), arguments(tmp_path), objective=getattr(decant.objectives, objective)()
    )
    data = torch.utils.data.TensorDataset(images, labels)
    assert run.evaluate(data)["eval_loss"] == pytest.approx(float(loss(*predictions(run, data))), rel=1e-4)


def test_a_batch_without_labels_is_not_a_loss_of_nothing_unsaid(tmp_path: Path) -> None:
    from decant.integrations.transformers import DistillationTrainer

    run = DistillationTrainer(watched.Watched(tmp_path), arguments(tmp_path))
    data = torch.utils.data.TensorDataset(torch.rand(20, 3, 8, 8), torch.full((20,), -1))
    with pytest.warns(CacheWarning, match="no sample of a batch has a label that is known") as said:
        assert run.evaluate(data)["eval_loss"] == 0
    assert len(said) == 1


def test_state_that_is_no_tensor_is_no_weight_that_is_missing() -> None:
    from decant.pipeline.integrations.resumed_weights import not_loaded

    class Scaled(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"scale": 1}

        def set_extra_state(self, state: object) -> None:
            del state

    assert not_loaded(Scaled(2, 2), ["bias", "_extra_state"]) == ["bias"]


def test_a_checkpoint_whose_weights_have_other_names_is_resumed_whole(tmp_path: Path) -> None:
    """A ViT is saved under the names of the hub. The Trainer of transformers leaves what it does not find fresh."""
    weights = []
    for stopped in (None, 6):
        torch.manual_seed(0)
        options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 6, "learning_rate": 1e-2}
        run = trainer(tmp_path, student=images_of("vit"), **options)
        run.train(resume_from_checkpoint=stopped and str(tmp_path / "out" / f"checkpoint-{stopped}"))
        weights.append(list(run.model.parameters()))
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    torch.save({"other": torch.zeros(1)}, tmp_path / "out" / "checkpoint-6" / "pytorch_model.bin")
    (tmp_path / "out" / "checkpoint-6" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"checkpoint-6: has no .*, of .* weights that it lacks"):
        run.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))


def test_a_collator_that_mixes_samples_is_refused(tmp_path: Path) -> None:
    from torchvision.transforms.v2 import CutMix

    from decant.integrations.transformers import DistillationTrainer

    mix = CutMix(num_classes=watched.CLASSES)

    def mixed(samples: list[Any]) -> Any:
        images = torch.stack([sample["images"] for sample in samples])
        both = mix(images, torch.tensor([sample["labels"] for sample in samples]))
        return dict(zip(("images", "labels"), both, strict=True))

    student = watched.Watched(tmp_path)
    run = DistillationTrainer(
        student, arguments(tmp_path), data_collator=mixed, train_dataset=watched.training_set(tmp_path)
    )
    with pytest.raises(DataError, match="the collate function has mixed the labels"):
        run.train()


class Sentences(torch.utils.data.Dataset[dict[str, Any]]):
    """Dictionaries of token ids of different lengths, with a column that no model takes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(3, 9, (24,), generator=generator).tolist()
        self.ids = [torch.randint(5, 30, (length,), generator=generator).tolist() for length in lengths]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        named = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)}
        return {**named, "label": sum(ids) % 3, "text": f"sentence {index}"}


def test_texts_are_padded_and_columns_that_the_model_does_not_take_are_left_out(tmp_path: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models

    from decant.integrations.transformers import DistillationTrainer

    data = Sentences()
    words = {f"w{number}": number for number in range(30)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w1")), pad_token="w0"
    )
    logits = torch.nn.functional.one_hot(torch.tensor([item["label"] for item in data]), 3) * 4.0
    manifest = decant.Manifest.build(num_samples=24, num_outputs=3)
    with decant.LogitCacheWriter(tmp_path / "texts.h5", manifest) as writer:
        for index, item in enumerate(data):
            row = {name: item[name][None] for name in ("input_ids", "attention_mask")}
            writer.write([index], logits[[index]], labels=[item["label"]], inputs=row)
        cache = decant.LogitCache.open(writer.publish())
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=30, num_labels=3, max_position_embeddings=16, **size)
    run = DistillationTrainer(
        transformers.BertForSequenceClassification(config),
        arguments(tmp_path, 2, eval_strategy="epoch"),
        train_dataset=SoftLabelDataset(data, cache, check_inputs="all"),
        eval_dataset=data,
        processing_class=tokenizer,
    )
    run.train()
    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("what", ["shuffled", "another transform", "grown"])
def test_a_mismatch_stops_the_first_batch(tmp_path: Path, what: str) -> None:
    cache = watched.training_set(tmp_path).cache
    with pytest.raises(MismatchError):
        trainer(tmp_path, train=SoftLabelDataset(watched.wrong_data()[what], cache)).train()
    assert not list(tmp_path.glob("rank-*"))


def test_training_without_logits_and_losses_beside_the_objective_are_refused(tmp_path: Path) -> None:
    from decant.integrations.transformers import DistillationTrainer

    with pytest.raises(DataError, match="the batch has images, and no teacher_logits"):
        trainer(tmp_path, train=watched.Pictures()).train()
    student = watched.Watched(tmp_path)
    with pytest.raises(RecipeError, match="compute_loss_func"):
        DistillationTrainer(student, compute_loss_func=lambda *_: 0)
    with pytest.raises(RecipeError, match="label_smoothing_factor"):
        DistillationTrainer(student, arguments(tmp_path, label_smoothing_factor=0.1))
