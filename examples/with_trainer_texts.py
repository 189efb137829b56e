"""Distillation of a BERT with the Trainer of transformers: python with_trainer_texts.py"""

import random

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import decant
from decant.integrations.transformers import DistillationTrainer

transformers.set_seed(0)
WORDS = ["[PAD]", "[UNK]", "a", "the", "film", "book", "plot", "was", "very", "so"]
WORDS += ["good", "great", "fine", "bad", "dull", "poor"]
words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")


def sentence() -> dict[str, object]:
    label = random.randrange(2)
    end = random.choice(["good", "great", "fine"] if label else ["bad", "dull", "poor"])
    text = (
        f"{random.choice(['a', 'the'])} {random.choice(WORDS[4:7])} was {random.choice(['very', 'so'])} {end}"
    )
    tokens = tokenizer(text, padding="max_length", max_length=8, return_tensors="pt")
    return {
        "input_ids": tokens["input_ids"][0],
        "attention_mask": tokens["attention_mask"][0],
        "label": label,
    }


def network(width: int) -> BertForSequenceClassification:
    size = {
        "hidden_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": width,
    }
    return BertForSequenceClassification(BertConfig(vocab_size=len(WORDS), num_labels=2, **size))


sentences = [sentence() for _ in range(256)]
args = TrainingArguments("trainer", num_train_epochs=4, learning_rate=3e-3, report_to="none", use_cpu=True)
teacher = network(64)
Trainer(teacher, args, train_dataset=sentences).train()
cache = decant.cache_logits(teacher.eval(), sentences, "sentences.h5")

trainer = DistillationTrainer(
    network(16),
    args,
    objective=decant.objectives.KD(alpha=0.9, temperature=2.0),
    train_dataset=decant.SoftLabelDataset(sentences, cache),
    eval_dataset=sentences,
    processing_class=tokenizer,
)
trainer.train()
print(trainer.evaluate())
