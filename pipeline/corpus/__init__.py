"""Texts as tokens: read from files, tokenised once into a mapped file, and laid out as the samples that networks read.

Needs no torch.
"""

from __future__ import annotations

from decant.pipeline.corpus.build import tokenise
from decant.pipeline.corpus.parts import split_documents
from decant.pipeline.corpus.samples import TokenSamples
from decant.pipeline.corpus.token_file import Corpus
from decant.pipeline.corpus.tokenizer import load_tokenizer, tokenizer_identity

__all__ = ["Corpus", "TokenSamples", "load_tokenizer", "split_documents", "tokenise", "tokenizer_identity"]
