"""Distillation in the training loops of other libraries, from a `SoftLabelDataset` or a `TokenDataset`.

Each module needs the library that it is named after, and is imported when it is first used, as
`decant.integrations.lightning`. Nothing here is needed for plain PyTorch or Accelerate.

batches.py            what a batch of a `SoftLabelDataset` holds, and the loss of a student on it
mixed_labels.py       notices a collate function that mixes samples
resumed_weights.py    weights of a checkpoint of transformers, all of them
epochs.py             the epoch of a dataset that may be a part of another one
lightning.py          a data module, a module, and the callback that sets the epoch
objective_trainer.py  what every Trainer has here: an objective for a loss
transformers.py       a Trainer of transformers and its collator
language_trainer.py   the same for language models, of a `TokenDataset`
trl.py                TRL's SFTTrainer with that
timm.py               a training task that takes cached logits
datasets.py           which rows of a cache a filtered or selected dataset has
"""
