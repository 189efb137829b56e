"""`make study RECIPE=language-model`, small: every way of teaching, found again, and what is left out is said."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.conditions import LeftOut
from benchmarks.study.language import command, encoding, table, texts
from benchmarks.study.language.arms import EPOCHS, arms
from benchmarks.study.language.jobs import claimed
from benchmarks.study.language.training import run
from decant.cache.io.locks import exclusive, lock_path
from decant.encodings import Sparse
from decant.language import TokenDataset
from tests.helpers import language
from tests.helpers.extras import needs
from tests.helpers.processes import PATIENCE

SIZES = "--tokens 700 --test-tokens 200 --seeds 1 --layers 1 --max-length 24"


def words(folder: Path, out: Path) -> list[str]:
    given = {"--teacher": folder / "teacher", "--texts": folder / "texts.jsonl", "--out": out}
    return [*(str(word) for option in given.items() for word in option), *SIZES.split()]


def study(folder: Path, more: str = "") -> dict[str, Any]:
    command.main([*words(folder, folder), *more.split()])
    found: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    teacher = language.llama(340)
    teacher.save_pretrained(tmp_path / "teacher")
    language.tokenizer().save_pretrained(tmp_path / "teacher")
    rows = [json.dumps({"text": " ".join(language.sentences(3, seed))}) for seed in range(50)]
    (tmp_path / "texts.jsonl").write_text("\n".join(rows))
    return tmp_path


def watch_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The runs that this process does not do, which waits with its own until there is one."""
    before, others = set(folder.glob("runs/*.json")), set[Path]()
    done = set[Path]()
    usual = command.run

    def waiting(study: Any, arm: Any, seed: int) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not set(folder.glob("runs/*.json")) - before - done:
            assert time.monotonic() < deadline, "the process beside this one does nothing"
            time.sleep(0.05)
        done.add(folder / "runs" / f"{arm.slug}-seed-{seed}.json")
        others.update(set(folder.glob("runs/*.json")) - before - done)
        return usual(study, arm, seed)

    monkeypatch.setattr(command, "run", waiting)
    return others


class TestStudy:
    pytestmark = needs("transformers")

    def test_every_way_is_taught_with_the_same_tokens_and_a_stopped_study_goes_on(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = study(folder, "--arms one-pass-h")
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*.json")}
        assert len(first["runs"]) == len(kept) == 8
        others = watch_for_others(folder, monkeypatch)
        runs = study(folder, "--jobs 2")["runs"]
        assert 0 < len(others) < len(runs) - len(kept), "this process did some, and the one beside it others"
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert [(run["arm"], run["schedule"], run["temperature"]) for run in runs] == [
            (arm.name, arm.schedule, arm.temperature) for arm in arms()
        ]
        for schedule in EPOCHS:
            assert len({(run["tokens"], run["steps"]) for run in runs if run["schedule"] == schedule}) == 1
        assert len({run["steps"] for run in runs}) == 1
        by_arm = {(run["arm"], run["schedule"], run["temperature"]): run["test"] for run in runs}
        for temperature in (1.0, 2.0):
            live, hidden, renormalised, head = (
                by_arm[name, "one pass", temperature]
                for name in ("live teacher", "hidden", "head 64, renormalised", "head 64 + tail")
            )
            assert live["kl"] == pytest.approx(hidden["kl"], rel=1e-3)
            assert len({hidden["kl"], renormalised["kl"], head["kl"]}) == 3
        alone, taught = (by_arm[name, "one pass", 1.0]["kl"] for name in ("labels only", "head 16 + tail"))
        assert alone != pytest.approx(taught, rel=1e-3), (
            "labels only learns nothing of the rows that it is given"
        )
        warm, hot = (by_arm["hidden", "one pass", temperature]["kl"] for temperature in (1.0, 2.0))
        assert warm != pytest.approx(hot, rel=1e-3)
        sizes = {run["arm"]: run["bytes_per_token"] for run in runs if run["temperature"] == 1}
        assert (sizes["labels only"], sizes["live teacher"], sizes["hidden"]) == (None, None, 2 * 32)
        assert sizes["draws 16, four views"] == 4 * Sparse(head=0, draws=16).row_bytes(340)
        said = capsys.readouterr().out
        assert said.count("| hidden |") == 2 + 4, "both tables, of which the first has one schedule"
        assert "| labels only | 1 | 1 | " in said
        with pytest.raises(SystemExit, match=r"study with lr 0\.001, and 0.5 is asked for"):
            study(folder, "--lr 0.5 --jobs 2")
        for process in (beside := multiprocessing.active_children()):
            process.join(PATIENCE)
        assert {process.exitcode for process in beside} <= {-signal.SIGTERM}, "the one beside it was ended"

    @pytest.mark.slow  # seconds of imports, of a second process
    def test_a_process_that_fails_is_said(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one beside this finds the settings of another study."""
        path = folder / "settings.json"

        def spoil(*_: object) -> None:
            path.write_text(path.read_text().replace("0.001", "0.5"))

        monkeypatch.setattr(command, "_measure_untrained", spoil)
        with pytest.raises(SystemExit, match=r"1 of 1 processes failed: the same command goes on"):
            study(folder, "--jobs 2 --arms none")

    def test_rows_that_a_device_encodes_are_those_of_the_host(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = []
        for name in ("host", "device"):
            monkeypatch.setattr(encoding, "encodes_on", lambda device, name=name: name == "device")
            prepared = command.prepare(command.parser().parse_args(words(folder, folder / name)))
            found.append(prepared.caches)
        epochs = list[int]()
        monkeypatch.setattr(TokenDataset, "set_epoch", lambda dataset, epoch: epochs.append(epoch))
        draws = next(arm for arm in arms() if arm.name.startswith("draws 16"))
        run(prepared, draws, 0)
        steps = prepared.steps
        assert epochs == [4 * step // steps for step in range(steps)], "each epoch reads its own view"
        host, device = found
        samples = np.arange(10)
        for name, cache in host.items():
            for view in range(cache.num_views):
                own, other = cache.rows(samples, view), device[name].rows(samples, view)
                assert (own.ids == other.ids).all()
                assert np.allclose(own.log_probs, other.log_probs, rtol=2**-9)
                assert np.allclose(own.log_tail, other.log_tail, atol=1e-5)
                probabilities = [one.next_log_prob(samples, view) for one in (cache, device[name])]
                assert np.allclose(*probabilities, rtol=2**-9)

    def test_what_is_missing_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(texts, "SOURCES", (("debian-handbook", "no/such/*.html"),))
        command.main(["--teacher", str(folder / "teacher"), "--out", str(folder)])
        assert (
            "left out: its texts are not here; run: apt-get install debian-handbook"
            in capsys.readouterr().err
        )


def test_a_run_is_done_by_one_process(tmp_path: Path) -> None:
    done, held, free = (tmp_path / "runs" / name for name in ("done", "held", "free"))
    done.parent.mkdir()
    done.touch()
    with exclusive(lock_path(held), waiting=pytest.fail):
        found = claimed([done, held, free])
        assert next(found) == free
        assert list(claimed([free])) == [], "it is held until the next is asked for"
        assert list(found) == []
    assert list(claimed([done, held, free])) == [held, free]


def test_the_table_has_means_over_seeds_and_differences_of_pairs() -> None:
    untrained = {"positions": 1000, "teacher_perplexity": 20.0, "perplexity": 5000.0, "kl": 4.0}

    def one(arm: str, seed: int, kl: float) -> dict[str, Any]:
        measured = {"perplexity": 10 * kl, "kl": kl, "calibration_error": 0.01, "agreement": 0.5}
        about = {
            "arm": arm,
            "schedule": "one pass",
            "temperature": 1.0,
            "seed": seed,
            "tokens": 700,
            "steps": 4,
        }
        return {**about, "bytes_per_token": 1060, "core_seconds": 7 + 2 * seed, "test": measured}

    runs = [
        one("hidden", 0, 1.0),
        one("hidden", 1, 1.2),
        one("head", 0, 1.3),
        one("head", 1, 1.7),
        one("head", 2, 3),
    ]
    said, *lines = (line for line in table.markdown(runs, untrained).splitlines() if line)
    assert said.startswith(
        "Measured on 1,000 tokens. The teacher's perplexity is 20.00; that of the student before"
    )
    assert (
        lines[-2]
        == "| hidden | 1 | 2 | 11.00 ± 1.41 | 1.1000 ± 0.1414 |  | 1.00 ± 0.00 | 50.00 ± 0.00 | 1,060 | 8 |"
    )
    assert lines[-1].startswith("| head | 1 | 3 | 20.00 ± 8.89 | 2.0000 ± 0.8888 | +0.4000 (SE 0.1000) | ")
    assert lines[-1].endswith(" | 1,060 | 9 |")


def test_pages_become_prose_and_missing_packages_are_named(tmp_path: Path) -> None:
    for package, pattern in texts.SOURCES:
        if package != "maint-guide":
            path = tmp_path / pattern.replace("*", "one")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                "<head><title>T</title></head><body><p>One\xa0word <b>more</b></p><p>Two</p></body>"
            )
    with pytest.raises(LeftOut, match=r"apt-get install maint-guide$"):
        texts.debian_texts(tmp_path)
    guide = tmp_path / "usr/share/doc/maint-guide/html/one.en.html"
    guide.parent.mkdir(parents=True)
    guide.write_text("<p>A guide</p>")
    found = texts.debian_texts(tmp_path)
    assert len(found) == len(texts.SOURCES)
    assert found[0] == "One word more\n\nTwo"
    assert found[3] == "A guide"
