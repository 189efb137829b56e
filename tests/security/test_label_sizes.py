"""Labels and texts that say more than there is: a label is a number of classes, which memory is taken for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.labels import check_labels
from decant.pipeline.data.samples import ArrayData
from decant.pipeline.data.text import text_folder
from decant.pipeline.errors import DataError
from tests.helpers.memory import peak_mib

LABELS = ("1000000000000", "16777216", "9" * 5000)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("label", LABELS)
def test_a_text_with_a_label_of_so_many_classes_is_refused(label: str, ending: str, tmp_path: Path) -> None:
    lines = (
        [f'{{"text": "a", "label": {label}}}'] if ending == "jsonl" else ["text,label", f"a,{label}", "b,0"]
    )
    (tmp_path / f"train.{ending}").write_text("\n".join(lines))
    settings = DataSettings(name="text", root=str(tmp_path), tokenizer=str(tmp_path / "none"))

    def read() -> None:
        with pytest.raises(DataError, match=r"at most 16,777,216 classes|is too large|data\.tokenizer"):
            text_folder(settings, ViewsSettings(), "train")

    assert peak_mib(read) < 200


def test_a_row_that_nests_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": ' + "[" * 100_000)
    settings = DataSettings(name="text", root=str(tmp_path), tokenizer="none")
    with pytest.raises(DataError, match=r"train\.jsonl: cannot be read: it nests too deeply"):
        text_folder(settings, ViewsSettings(), "train")


def test_an_array_with_such_a_label_is_refused() -> None:
    data = ArrayData("own", "train", np.zeros((2, 3), np.float32), np.array([0, 10**12]), ())
    with pytest.raises(DataError, match="own: train: label 1000000000000: at most 16,777,216 classes"):
        check_labels(data)
