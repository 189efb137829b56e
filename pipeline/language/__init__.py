"""Language models: texts as token samples, a causal teacher's pass over them, and batches with its rows for a student.

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
