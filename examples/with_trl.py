"""Distillation of a language model with TRL's SFTTrainer: python with_trl.py"""

import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig

from decant import language
from decant.encodings import Sparse
from decant.integrations.trl import SFTDistillationTrainer
from decant.objectives import SparseKD

random.seed(0)
torch.manual_seed(0)
WHO, DOES, WHERE = ["the cat", "a dog", "my bird"], ["sees", "likes", "finds"], ["today", "at home", "there"]
texts = [" ".join(map(random.choice, (WHO, DOES, WHO, WHERE))) + "." for _ in range(400)]
words = Tokenizer(models.BPE())
words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
words.train_from_iterator(texts, trainers.BpeTrainer(special_tokens=["<end>"], show_progress=False))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def network(width: int, layers: int) -> LlamaForCausalLM:
    size = {"hidden_size": width, "intermediate_size": width, "num_attention_heads": 2}
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": None, "eos_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **tokens, **size))


corpus = language.tokenise(texts, tokenizer, "texts.tokens")
samples = language.TokenSamples(corpus, max_length=32)

teacher = network(64, layers=4)
optimizer = torch.optim.AdamW(teacher.parameters(), 3e-3)
for indices in torch.randperm(3 * len(samples)).remainder(len(samples)).split(16):
    rows = [torch.from_numpy(samples.tokens(index)) for index in indices.tolist()]
    ids, labels = (pad_sequence(rows, batch_first=True, padding_value=value) for value in (0, -100))
    optimizer.zero_grad()
    teacher(input_ids=ids, labels=labels).loss.backward()
    optimizer.step()

cache = language.cache_logits(teacher, samples, "teacher.h5", encoding=Sparse(head=16))
train = language.TokenDataset(samples, cache)
args = SFTConfig(
    "trainer", num_train_epochs=3, learning_rate=3e-3, report_to="none", use_cpu=True, bf16=False
)
trainer = SFTDistillationTrainer(
    language.cut_layers(teacher, [0, 3]),
    args,
    objective=SparseKD(alpha=0.9),
    train_dataset=train,
    eval_dataset=train,
)
trainer.train()
print(trainer.evaluate())
