"""`python -m benchmarks.study --recipe language-model`: every way of teaching with every seed, then the table.

Each run writes its figures when it is done, so a study that was stopped goes on, and a table is made of what is there.
The runs of one seed come before those of the next. One small network does not keep a GPU busy: there several runs are
made at a time, with --jobs.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.conditions import LeftOut
from benchmarks.study.language import table
from benchmarks.study.language.arms import Arm, Rows, arms
from benchmarks.study.language.jobs import beside, claimed, orphaned
from benchmarks.study.language.phase_one import Part, caches, chosen_documents, load_teacher, part_of
from benchmarks.study.language.texts import debian_texts
from benchmarks.study.language.training import Settings, Study, run
from decant import language
from decant.cache.io.files import write_atomically
from decant.objectives import TeacherHead
from decant.pipeline.language.causal_model import CausalModel

SHARES = {"train": 0.85, "validation": 0.05, "test": 0.1}
"""Of the documents. What is chosen by hand, as the learning rate, was chosen by the validation part."""


def main(words: Sequence[str]) -> None:
    """Runs the study, or says why it cannot be run here."""
    taken = parser()
    options = taken.parse_args(words)
    if options.jobs < 1:
        taken.error(f"--jobs: expected 1 or more, found {options.jobs}")
    with beside(_take_part, options, options.jobs - 1) as others:
        try:
            study = prepare(options)
        except (LeftOut, ModuleNotFoundError) as error:
            print(f"language-model: left out: {error}", file=sys.stderr)
            return
        _measure_untrained(study, options.out / "untrained.json")
        others.go()
        _do_runs(study, options)
        others.join()
    print(_conclude(options))


def _take_part(options: argparse.Namespace) -> None:
    """What a process beside the first does when caches are there."""
    _do_runs(prepare(options), options)


def _do_runs(study: Study, options: argparse.Namespace) -> None:
    """All runs that nobody else has done or does."""
    wanted = {
        _path(options.out, arm, seed): (arm, seed)
        for seed in range(options.seeds)
        for arm in _chosen(options)
    }
    for path in claimed(wanted):
        if orphaned():
            return
        arm, seed = wanted[path]
        made = {**run(study, arm, seed), "jobs": options.jobs, "machine": machine.describe()}
        write_atomically(path, json.dumps(made, indent=1).encode())
        shown = {name: made[name] for name in ("arm", "schedule", "temperature", "seed", "seconds", "test")}
        print(json.dumps(shown), flush=True)


def parser() -> argparse.ArgumentParser:
    """Of the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.study --recipe language-model", description=__doc__
    )
    parser.add_argument("--tokens", type=int, default=600_000, help="that each student is trained on")
    parser.add_argument("--test-tokens", type=int, default=12_000, help="that each student is measured on")
    parser.add_argument(
        "--part", choices=["test", "validation"], default="test", help="of the documents, for that"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[0, 6, 12, 18, 24, 29], help="of the teacher's"
    )
    parser.add_argument("--max-length", type=int, default=256, help="tokens of a sample")
    parser.add_argument("--batch-size", type=int, default=4, help="samples of an update")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument(
        "--alpha", type=float, default=0.9, help="weight of the teacher's term beside the labels'"
    )
    parser.add_argument("--arms", default="", metavar="WORDS", help="only those whose file names begin so")
    parser.add_argument("--device", default="cpu", help="where everything is computed: cpu or cuda")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each of which does a run at a time")
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch in each process; 0 leaves that to it"
    )
    parser.add_argument("--teacher", help="a folder or .gguf file in the place of SmolLM2")
    parser.add_argument(
        "--texts", type=Path, help="texts in the place of Debian's, as decant.language.tokenise takes"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study-language-model"), help="where all goes")
    return parser


def prepare(options: argparse.Namespace) -> Study:
    """Everything that runs are made from. Raises LeftOut where a piece of it is not here."""
    if options.threads:
        torch.set_num_threads(options.threads)
    folder, device = options.out, torch.device(options.device)
    texts: Any = debian_texts() if options.texts is None else options.texts
    teacher, tokenizer = load_teacher(options.teacher, folder)
    settings = Settings(
        **{field.name: getattr(options, field.name) for field in fields(Settings) if field.name != "layers"},
        layers=tuple(options.layers),
    )
    _require_same(
        folder / "settings.json",
        {**asdict(settings), "part": options.part, "teacher": options.teacher, "device": device.type},
    )
    corpus = language.tokenise(texts, tokenizer, folder / "texts.tokens")
    parts = language.split_documents(corpus, SHARES)
    narrow = copy.deepcopy(teacher).bfloat16().to(device)
    made: dict[str, Part] = {}
    for name, part, tokens in (
        ("train", "train", options.tokens),
        ("test", options.part, options.test_tokens),
    ):
        documents = chosen_documents(corpus, parts[part], tokens)
        samples = language.TokenSamples(
            corpus, max_length=options.max_length, rows="pieces", documents=documents
        )
        made[name] = part_of(narrow, samples, folder / f"hidden-{name}.h5")
    hidden = made["train"].hidden
    wanted = dict.fromkeys(arm.source for arm in arms() if isinstance(arm.source, Rows))
    reader = CausalModel(narrow, hidden.num_outputs)
    reader.prepare(torch.from_numpy(made["train"].samples.tokens(0)[None, :32]))
    return Study(
        settings,
        teacher,
        reader,
        TeacherHead.of(hidden),
        made["train"],
        caches(hidden, folder, wanted, device),
        made["test"],
        device,
    )


def _require_same(path: Path, settings: dict[str, Any]) -> None:
    """Ends the command where the folder has the runs of another study."""
    content = json.loads(json.dumps(settings))
    if path.exists():
        found = {"device": "cpu", **json.loads(path.read_text())}
        other = [name for name in content if found.get(name) != content[name]]
        if other:
            raise SystemExit(
                f"{path}: is of a study with {', '.join(f'{name} {found.get(name)}' for name in other)}, and "
                f"{', '.join(str(content[name]) for name in other)} is asked for: give another folder (--out)"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1).encode())


def _chosen(options: argparse.Namespace) -> list[Arm]:
    return [arm for arm in arms() if arm.slug.startswith(options.arms)]


def _path(folder: Path, arm: Arm, seed: int) -> Path:
    return folder / "runs" / f"{arm.slug}-seed-{seed}.json"


def _measure_untrained(study: Study, path: Path) -> None:
    """What the student is before it is taught."""
    if not path.exists():
        student = language.cut_layers(study.teacher, study.settings.layers).to(study.device)
        found = language.measure(student, study.test.samples, study.test.hidden, tokens_per_batch=2048)
        write_atomically(path, json.dumps(asdict(found), indent=1).encode())


def _conclude(options: argparse.Namespace) -> str:
    """The table of all finished runs; the same and their figures go to files."""
    paths = [_path(options.out, arm, seed) for arm in arms() for seed in range(options.seeds)]
    runs = [json.loads(path.read_text()) for path in paths if path.exists()]
    untrained, settings = (
        json.loads((options.out / name).read_text()) for name in ("untrained.json", "settings.json")
    )
    text = table.markdown(runs, untrained)
    content = {"settings": settings, "untrained": untrained, "runs": runs}
    write_atomically(options.out / "study.json", json.dumps(content, indent=1).encode())
    write_atomically(options.out / "study.md", f"{text}\n".encode())
    return text
