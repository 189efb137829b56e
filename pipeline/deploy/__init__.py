"""A finished network as files that run without this project: `decant export`.

deployable.py   the network with its preprocessing, and what a file says of it
formats.py      the files: torch.export's and ONNX
quantisation.py the ONNX file in 8 bits
runtimes.py     each file in what runs it
check.py        a file's answers held against the network's, and how long they take
export.py       a run → its files, checked and then published
"""

from __future__ import annotations

from decant.pipeline.deploy.export import Exported, export_run

__all__ = ["Exported", "export_run"]
