"""The rows of `make bench` that are of language models, small."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import language_phase_one, language_students
from benchmarks.conditions import Conditions, LeftOut
from benchmarks.measurement import Unit
from decant import LogitCache, LogitCacheWriter
from tests.helpers.extras import needs


class TestRows:
    pytestmark = needs("transformers")

    def test_each_has_its_figure(self, tmp_path: Path) -> None:
        conditions = Conditions(tmp_path, quick=True, seed=7)
        rows = [
            *language_phase_one.measure(conditions),
            *language_students.against_labels(conditions),
            *language_students.against_live(conditions),
        ]
        assert [row.row for row in rows] == [28, 28, 29, 29, 29, 29, 30]
        for row in rows:
            assert 0 < row.found < 100, row
            assert row.details["seconds"] > 0, row
            if row.unit is Unit.TIME:
                assert row.found == pytest.approx(row.details["seconds"] / row.details["against_seconds"])
            if row.unit is Unit.PART:
                assert row.found < 1, row
        parts = rows[-1].details
        possible = 1 + parts["forward_seconds"] / parts["step_seconds"]
        assert rows[-1].found == pytest.approx(parts["seconds"] / parts["cached_seconds"] / possible)

    def test_what_is_timed_is_the_work_that_the_row_is_called_after(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Counted: tokens that the teacher and a student read, rows that are read of a cache and written into one."""
        from transformers.models.llama.modeling_llama import LlamaModel

        found = count_work(monkeypatch, LlamaModel)
        conditions = Conditions(tmp_path, quick=True, seed=7)
        list(language_phase_one.measure(conditions))
        bare, *passes = found
        tokens = bare["teacher"]
        assert bare == {"teacher": tokens}
        (rows,) = {one["written"] for one in passes}
        assert passes == [{"teacher": tokens, "written": rows}] * 2
        assert tokens >= 200
        assert 0 < tokens - rows < 10, "all positions but the last of each document"
        found.clear()
        list(language_students.against_labels(conditions))
        tokens = found[0]["student"]
        assert tokens >= 256
        rows = tokens - len(language_students.Student.of(conditions, 256).samples)
        assert found == [{"student": tokens, "read": rows}, {"student": tokens}] * 2
        found.clear()
        list(language_students.against_live(conditions))
        assert found == [
            {"student": tokens, "teacher": tokens},
            {"student": tokens, "read": rows},
            {"teacher": tokens},
            {"student": tokens},
        ]


def count_work(monkeypatch: pytest.MonkeyPatch, network: type[Any]) -> list[dict[str, int]]:
    """What each thing that is timed does when it has warmed up; all take a second."""
    counts, found = Counter[str](), list[dict[str, int]]()

    def counted(of: type[Any], name: str, amount: Callable[..., tuple[str, int]]) -> None:
        usual = getattr(of, name)

        def call(*given: Any, **more: Any) -> Any:
            what, many = amount(*given, **more)
            counts[what] += many
            return usual(*given, **more)

        monkeypatch.setattr(of, name, call)

    def tokens(_: Any, input_ids: Any = None, attention_mask: Any = None, **__: Any) -> tuple[str, int]:
        who = "student" if torch.is_grad_enabled() else "teacher"
        return who, int(input_ids.numel() if attention_mask is None else attention_mask.sum())

    def at_once(*things: Callable[[], float], repetitions: int) -> list[float]:
        for thing in things:
            thing()
            counts.clear()
            thing()
            found.append(dict(counts))
        return [1.0 for _ in things]

    counted(network, "forward", tokens)
    for name in ("rows", "hidden"):
        counted(LogitCache, name, lambda cache, samples, *_: ("read", int(cache.lengths[samples].sum())))
    counted(
        LogitCacheWriter, "write_encoded", lambda *_, next_log_prob, **__: ("written", len(next_log_prob))
    )
    for module in (language_phase_one, language_students):
        monkeypatch.setattr(module, "medians", at_once)
    return found


@pytest.mark.parametrize(
    "measure",
    [language_phase_one.measure, language_students.against_labels, language_students.against_live],
)
def test_without_transformers_they_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measure: object
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LeftOut, match=r"^transformers: not installed; run: pip install"):
        list(measure(Conditions(tmp_path, quick=True, seed=7)))  # type: ignore[operator]
