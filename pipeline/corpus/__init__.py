"""Texts as tokens: read from files, tokenised once into a mapped file, and laid out as the samples that networks read.

sources.py     where documents come from;  documents.py  one document;  chat.py  a chat as one text
tokenizer.py   tokenizers of transformers;  made_tokenizers.py  those that need no download
special_tokens.py  those that texts hold, counted
tokens.py      documents → token ids;  build.py  `tokenise`;  token_file.py  the mapped file
samples.py     what a network reads of it;  parts.py  which documents are for training, validation and test
difference.py  the first token in which two rows differ, in words;  cached.py  what identifies a cache of samples

Needs no torch.
"""

from __future__ import annotations

from decant.pipeline.corpus.build import tokenise
from decant.pipeline.corpus.parts import split_documents
from decant.pipeline.corpus.samples import TokenSamples
from decant.pipeline.corpus.token_file import Corpus
from decant.pipeline.corpus.tokenizer import load_tokenizer, tokenizer_identity

__all__ = ["Corpus", "TokenSamples", "load_tokenizer", "split_documents", "tokenise", "tokenizer_identity"]
