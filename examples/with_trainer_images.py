"""Distillation of a ViT with the Trainer of transformers: python with_trainer_images.py, or under torchrun"""

import numpy as np
from digits import EPOCHS, Digits, jitter, trained_teacher
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import decant
from decant.integrations.transformers import DistillationTrainer

args = TrainingArguments(
    "trainer",
    num_train_epochs=EPOCHS,
    per_device_train_batch_size=32,
    gradient_accumulation_steps=2,
    learning_rate=3e-3,
    eval_strategy="epoch",
    logging_steps=10,
    report_to="none",
    use_cpu=True,
)
views = decant.Views(Digits("train"), jitter, count=EPOCHS, seed=0)
with args.main_process_first():
    cache = decant.cache_logits(trained_teacher(), views, "digits.h5")

size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
student = ViTForImageClassification(
    ViTConfig(image_size=8, patch_size=2, num_channels=1, num_labels=10, **size)
)
trainer = DistillationTrainer(
    student,
    args,
    objective=decant.objectives.KD(alpha=0.9, temperature=4.0),
    train_dataset=decant.SoftLabelDataset(views, cache),
    eval_dataset=Digits("test"),  # (image, label): without logits the loss is the cross-entropy of the labels
    compute_metrics=lambda found: {"accuracy": np.mean(found.predictions.argmax(1) == found.label_ids)},
)
trainer.train()
print(f"{args.world_size} processes: {trainer.evaluate()}")
