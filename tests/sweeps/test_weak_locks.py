"""A sweep in a folder without file locks, which one process after the other goes on with."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from decant.pipeline.sweeps import searches
from decant.pipeline.sweeps.record import is_running, running
from decant.pipeline.sweeps.searches import Search, SearchPlan, worker_name
from decant.pipeline.sweeps.space import parse_over
from tests.helpers.weak_locks import weaken


def test_a_trial_whose_process_was_killed_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weaken("no locks", monkeypatch)
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    host = socket.gethostname()
    workers = [f"process {process} on {host}" for process in (dead, os.getpid(), os.getppid())]
    taken = []
    for number, worker in enumerate([*workers, "process 1 on elsewhere"]):
        plan = SearchPlan(f"search-{number}", (parse_over("student.lr=0.1,0.2"),), 1)
        with Search(tmp_path, plan, {}).claim() as claim:
            assert claim is not None
            claim.trial.set_user_attr("worker", worker)
        with Search(tmp_path, plan, {}).claim() as again:
            taken.append(again is not None and again.values == claim.values)
    assert taken == [True, True, False, False]
    said = capsys.readouterr().err
    assert said.startswith("waiting: trial 0 is of process 1 on elsewhere, and "), said
    with running(tmp_path):
        assert not is_running(tmp_path)


def test_a_trial_that_another_process_has_drawn_just_now_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names itself a moment later; one that was killed in that moment never does."""
    weaken("no locks", monkeypatch)
    plan = SearchPlan("search", (parse_over("student.lr=0.1,0.2"),), 1)
    Search(tmp_path, plan, {})._study.ask()
    with Search(tmp_path, plan, {}).claim() as claim:
        assert claim is None
    monkeypatch.setattr(searches, "_NAMING_TIME", timedelta(0))
    with Search(tmp_path, plan, {}).claim() as claim:
        assert claim is not None
        assert claim.number == 0


def test_a_trial_names_its_process_before_its_settings_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = list[object]()
    draw = Search._drawn
    monkeypatch.setattr(
        Search,
        "_drawn",
        lambda search, trial: named.append(trial.user_attrs["worker"]) or draw(search, trial),
    )
    with Search(tmp_path, SearchPlan("search", (parse_over("student.lr=0.1,0.2"),), 1), {}).claim():
        assert named == [worker_name()]


def test_a_process_that_has_a_trial_to_run_does_not_say_that_it_waits_for_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weaken("no locks", monkeypatch)
    plan = SearchPlan("search", (parse_over("student.lr=0.1,0.2"),), 2)
    with Search(tmp_path, plan, {}).claim() as claim:
        assert claim is not None
        claim.trial.set_user_attr("worker", "process 1 on elsewhere")
    with Search(tmp_path, plan, {}).claim() as claim:
        assert claim is not None
        assert claim.number == 1
    assert capsys.readouterr().err == ""
