"""What reaches a terminal or a pipe whose encoding lacks our signs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.commands import decant_anew, succeed


def test_what_an_encoding_lacks_is_written_in_other_signs(tmp_path: Path) -> None:
    """It ended a command with an "unexpected error", after its work was done."""
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown = succeed(decant_anew("objectives", cwd=tmp_path, **plain))
    assert shown.isascii()
    assert "(1 - alpha)-CE + alpha-T^2-KL(teacher ||" in shown
    assert "alpha 0.9, temperature 4" in shown
    told = json.loads(succeed(decant_anew("objectives", "--json", cwd=tmp_path, **plain)))
    assert "(1 − alpha)·CE + alpha·T²·KL(teacher ‖ student)" in [one["formula"] for one in told]
