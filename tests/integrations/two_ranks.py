"""Trainings of a watched student in two processes: `python -m tests.integrations.two_ranks FRAMEWORK FOLDER`, by the
framework's own launcher where it has one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integrations import watched


def lightning(folder: Path) -> None:
    from tests.integrations.test_lightning import parts, trainer

    module, data = parts(folder)
    trainer(folder, watched.VIEWS, devices=2, strategy="ddp").fit(module, datamodule=data)


def transformers(folder: Path) -> None:
    from tests.integrations.test_transformers import trainer

    trainer(folder, watched.VIEWS, per_device_train_batch_size=4).train()


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
