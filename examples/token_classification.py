"""Distillation of a tagger, which labels each word of a text: python token_classification.py"""

import random

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy, kl_div
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

from decant import LogitCache, LogitCacheWriter, Manifest, Positions, SequenceDataset

random.seed(0)
torch.manual_seed(0)
TAGS = {"the": 0, "a": 0, "dog": 1, "cat": 1, "see": 2, "like": 2}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TAGS, "##s", "##ing"]
pieces = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(PIECES)}, unk_token="[UNK]"))
pieces.pre_tokenizer = pre_tokenizers.Whitespace()
pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="[PAD]")
samples = []  # tokens (L,); labels (L,): a word's tag at its first piece, -100 at the others and at special tokens
for _ in range(300):
    noun, verb = random.choice(["dog", "dogs", "cats"]), random.choice(["sees", "seeing", "likes"])
    ids = torch.tensor(tokenizer(random.choice([f"the {noun} {verb}", f"a {noun}"]))["input_ids"])
    samples.append((ids, torch.tensor([TAGS.get(PIECES[i], -100) for i in ids])))


def tagger(width: int) -> BertForTokenClassification:
    size = {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(PIECES), num_labels=3, num_hidden_layers=2, **size)
    return BertForTokenClassification(config)


teacher = tagger(64)
optimizer = torch.optim.AdamW(teacher.parameters(), 1e-3)
for ids, tags in samples:
    teacher.zero_grad()
    teacher(input_ids=ids[None], labels=tags[None]).loss.backward()
    optimizer.step()

at = [np.flatnonzero(tags >= 0) for _, tags in samples]  # rows at the first pieces of words alone
read = {"tokens": torch.cat([ids for ids, _ in samples]), "token_lengths": [len(ids) for ids, _ in samples]}
positions = Positions.of([len(places) for places in at], predicts="here", places=np.concatenate(at), **read)
about = Manifest.build(num_samples=len(samples), num_outputs=3, positions=positions)
with LogitCacheWriter("teacher.h5", about, positions=positions) as writer, torch.inference_mode():
    for index, (ids, _) in enumerate(samples):
        writer.write([index], teacher.eval()(input_ids=ids[None]).logits[0, at[index]])
    cache = LogitCache.open(writer.publish())

train, student = SequenceDataset(samples, cache), tagger(16)
optimizer = torch.optim.AdamW(student.parameters(), 1e-2)
for batch in DataLoader(train, 16, shuffle=True, collate_fn=train.collate):
    logits = batch.at(student(input_ids=batch.inputs, attention_mask=batch.mask).logits)  # (Q, 3)
    soft = kl_div(logits.log_softmax(1), batch.teacher_logits.softmax(1), reduction="batchmean")
    loss = 0.9 * soft + 0.1 * cross_entropy(logits, batch.at(batch.labels))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")
