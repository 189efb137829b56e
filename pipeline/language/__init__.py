"""Language models: texts as token samples, a causal teacher's pass over them, and batches with its rows for a student.

caching.py     `cache_logits`;  building.py  the cache at a path: found, or built
loading.py     a causal network of transformers;  causal_model.py  it in two halves, hidden states and logits;
               head.py  which layer makes the logits
batches.py     batches of token samples;  blocks.py  rows of about one length
teacher_pass.py  the pass of a network;  served_pass.py  of a server, for served.py;  shift.py  whether outputs are
               shifted;  same_teacher.py  whether a network says what a cache holds;  memory.py  what is said where
               memory runs out
dataset.py     `TokenDataset`: samples joined with rows;  alignment.py  whether they belong together
students.py    students cut from their teacher;  training.py  students in the training loop of recipes;  criteria.py
               their losses;  without_head.py  a network called without logits
doubts.py      what is said of a network that is doubtful;  apart.py  whether it sees what a sample lies behind
measures.py    what a student says of held-out tokens;  tallies.py  added up over all positions

>>> from decant import language
>>> sorted(language.__all__)[:3]
['Corpus', 'Measures', 'ServedTeacher']
"""

from __future__ import annotations

from decant.pipeline.corpus import Corpus, TokenSamples, load_tokenizer, split_documents, tokenise
from decant.pipeline.language.caching import cache_logits
from decant.pipeline.language.dataset import TokenBatch, TokenDataset
from decant.pipeline.language.loading import load_causal
from decant.pipeline.language.measures import Measures, measure
from decant.pipeline.language.students import cut_layers
from decant.pipeline.served import ServedTeacher

__all__ = [
    "Corpus",
    "Measures",
    "ServedTeacher",
    "TokenBatch",
    "TokenDataset",
    "TokenSamples",
    "cache_logits",
    "cut_layers",
    "load_causal",
    "load_tokenizer",
    "measure",
    "split_documents",
    "tokenise",
]
