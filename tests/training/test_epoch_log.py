"""metrics.jsonl: every reader gets the epochs before a line that is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decant.pipeline.errors import DamagedError
from decant.pipeline.training.epoch_log import (
    METRICS,
    append_epoch,
    epoch_seconds,
    keep_epochs,
    read_epochs,
    trained_seconds,
)

LINES = [{"epoch": 1, "loss": 2.0, "seconds": 1.5}, {"epoch": 2, "loss": 1.0, "seconds": 2}]
TORN = {
    "cut in a name": '{"epoch": 3, "lo',
    "cut in a number": '{"epoch": 3, "seconds": 4',
    "cut after its first character": "{",
    "joined to the next": '{"epoch": 3{"epoch": 4, "seconds": 1.0}\n',
    "cut, and others after it": '{"epoch": 3\n{"epoch": 4, "seconds": 1.0}\n',
    "no object": "null\n",
    "a list": "[3]\n",
    "of no epoch": '{"loss": 1.0, "seconds": 1.0}\n',
    "empty": "\n",
    "zeros": "\0\0\0\0",
    "no text": "\udcff\udcfe",
}


def log(folder: Path, torn: str = "") -> Path:
    for line in LINES:
        append_epoch(folder, line)
    with open(folder / METRICS, "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(torn)
    return folder


@pytest.mark.parametrize("torn", TORN.values(), ids=list(TORN))
def test_a_line_that_is_not_whole_ends_what_is_known_of_a_run(torn: str, tmp_path: Path) -> None:
    log(tmp_path / "run", torn)
    assert read_epochs(tmp_path / "run") == LINES
    assert epoch_seconds(tmp_path / "run") == [1.5, 2.0]
    assert trained_seconds(tmp_path / "run") == 3.5


@pytest.mark.parametrize("torn", TORN.values(), ids=list(TORN))
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_run_that_goes_on_drops_what_it_trains_again(torn: str, count: int, tmp_path: Path) -> None:
    log(tmp_path, torn)
    keep_epochs(tmp_path, count)
    assert read_epochs(tmp_path) == LINES[:count]
    append_epoch(tmp_path, {"epoch": count + 1})
    assert read_epochs(tmp_path) == [*LINES[:count], {"epoch": count + 1}]


def test_a_log_cut_at_any_byte_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    log(tmp_path)
    content = (tmp_path / METRICS).read_bytes()
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content)):
        (tmp_path / METRICS).write_bytes(content[:length])
        assert len(read_epochs(tmp_path)) == sum(length >= end for end in ends), f"{length} bytes"


def test_an_epoch_whose_time_is_not_known_ends_the_times(tmp_path: Path) -> None:
    log(tmp_path, '{"epoch": 3, "seconds": null}\n')
    assert len(read_epochs(tmp_path)) == 3
    assert epoch_seconds(tmp_path) == [1.5, 2.0]


@pytest.mark.parametrize(
    "field",
    ['"seconds": "3"', '"loss": []', '"test": 3', '"test": {"top1": "1"}', '"epoch": -1'],
)
def test_a_whole_line_that_no_run_logs_is_named(field: str, tmp_path: Path) -> None:
    log(tmp_path, f'{{"epoch": 3, {field}}}\n')
    with pytest.raises(DamagedError, match=f"{METRICS}: line 3: {field.split(chr(34))[1]}"):
        read_epochs(tmp_path)


def test_a_number_that_nothing_measures_is_named(tmp_path: Path) -> None:
    log(tmp_path, '{"epoch": 3, "lr": 1e200}\n')
    with pytest.raises(DamagedError, match=f"{METRICS}: line 3: the number 1e200 is too large"):
        read_epochs(tmp_path)


def test_where_nothing_was_logged_there_is_nothing(tmp_path: Path) -> None:
    keep_epochs(tmp_path, 0)
    assert read_epochs(tmp_path) == []
    assert trained_seconds(tmp_path) == 0.0


def test_a_line_is_json_that_other_tools_read(tmp_path: Path) -> None:
    log(tmp_path)
    assert [json.loads(line) for line in (tmp_path / METRICS).read_text("ascii").splitlines()] == LINES
