"""Exports finished networks to files that run without Decant, and predicts with them: `decant export`, `decant
predict`.

deployable.py    the network with its preprocessing, and the description that a file carries
formats.py       the torch.export file and the ONNX file
quantisation.py  the ONNX file in 8 bits
runtimes.py      runs each file in its own runtime
check.py         compares a file's outputs with the network's, and measures latency
export.py        exports a run: makes the files, checks them, publishes them
language_model.py  exports a language model as a folder of the transformers library
predict.py       classifies image files with the network of a run
"""

from __future__ import annotations

from decant.pipeline.deploy.export import Exported, export_run

__all__ = ["Exported", "export_run"]
