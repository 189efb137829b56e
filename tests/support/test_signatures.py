"""Functions of users are asked what they take; what their annotations name need not exist."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.config.objectives import Custom
from decant.pipeline.networks.resizing import takes_size
from decant.pipeline.objectives import external
from decant.pipeline.own_loop import teacher
from decant.pipeline.support import trust

SOURCE = """
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somewhere import Tensor, Unknown

def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, sample_weights: Unknown = None) -> Tensor:
    return (student_logits - teacher_logits).square().mean()

def network(num_classes: Unknown, input_shape: Unknown, size: Unknown = 8) -> Unknown: ...

def two_inputs(ids: Tensor, mask: Tensor) -> Tensor: ...
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated where they stand")
def test_annotations_of_names_for_type_checkers_alone_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "typed_code.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    trust.named_by_recipe(["typed_code:loss"])
    external.from_function(Custom(name="typed_code:loss"), class_weights=[1.0, 2.0])
    module: Any = sys.modules["typed_code"]
    assert takes_size(module.network)
    assert teacher._takes_keywords(module.two_inputs, {"ids": 0, "mask": 0})
    assert not teacher._takes_keywords(module.two_inputs, {"ids": 0})
