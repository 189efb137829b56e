"""Distillation of a language model in a plain PyTorch loop: python language_model.py"""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from decant import language
from decant.encodings import Sparse
from decant.objectives import sparse_kd

random.seed(0)
torch.manual_seed(0)
WHO, DOES, WHERE = ["the cat", "a dog", "my bird"], ["sees", "likes", "finds"], ["today", "at home", "there"]
texts = [" ".join(map(random.choice, (WHO, DOES, WHO, WHERE))) + "." for _ in range(400)]
words = Tokenizer(models.BPE())
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
words.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=["<end>"], show_progress=False))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def network(width: int) -> LlamaForCausalLM:
    size = {
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, **size))


corpus = language.tokenise(texts, tokenizer, "texts.tokens")
samples = language.TokenSamples(corpus, max_length=32)

teacher = network(64)
optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
for indices in torch.randperm(3 * len(samples)).remainder(len(samples)).split(16):
    rows = [torch.from_numpy(samples.tokens(index)) for index in indices.tolist()]
    ids, labels = (pad_sequence(rows, batch_first=True, padding_value=value) for value in (0, -100))
    optimizer.zero_grad()
    teacher(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()

cache = language.cache_logits(teacher, samples, "teacher.h5", encoding=Sparse(head=16))
train = language.TokenDataset(samples, cache)
student = network(16)
optimizer = torch.optim.AdamW(student.parameters(), 1e-2)
for epoch in range(3):
    for batch in DataLoader(train, 16, shuffle=True, collate_fn=train.collate):
        logits = batch.logits(student(**batch.inputs))
        loss = sparse_kd(logits, batch.targets, batch.labels, alpha=0.9).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}")
print("the student beside its teacher:")
print(language.measure(student, samples, cache))
