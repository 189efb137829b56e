"""Kills random ranks of a real `decant student` at random moments, by SIGKILL: `python -m
tests.helpers.killing_students FOLDER KILLS SEED`.

Students are trained by seeds, or each by all ranks, in turn. Each start has two or three ranks, or is a process alone,
and has the seeds of a process in one loop or one after the other, whatever the start before had. Students that are
finished, after whatever kills, must have the weights of one process's: by seeds bit for bit, by all ranks up to
rounding.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from tests.helpers.killing_ranks import PATIENCE, ended, one_start, published, start  # first: it sets threads

# isort: split

from safetensors.torch import load_file

from decant.pipeline.cli.main import decant
from decant.pipeline.phases import student, teacher  # noqa: F401  imported here once, for every fork
from decant.pipeline.ranks import ending, facts
from decant.pipeline.runs.result import RESULT, WEIGHTS

SETTINGS = ("teacher.network.width=4", "teacher.epochs=1", "student.network=mlp", "student.batch_size=205")
KINDS = {
    "seeds": ('student.parallel="seeds"', "student.seeds=4", "student.epochs=6", "student.baseline=false"),
    "batch": ('student.parallel="batch"', "student.seeds=1", "student.epochs=6", "student.lr=0.002"),
}
TOLERANCE = {"seeds": 0.0, "batch": 1e-5}
LONGEST = 2.0  # seconds until a kill


def words(phase: str, folder: Path, runs: str, *more: str) -> list[str]:
    """The command line of a phase."""
    overrides = [word for value in (*SETTINGS, *more) for word in ("--set", value)]
    return [phase, *overrides, "--runs", str(folder / runs), "--store", str(folder / "store")]


def weights(runs: Path) -> dict[str, dict[str, object]]:
    """The weights of each finished student."""
    return {
        str(path.parent.relative_to(runs)): dict(load_file(path.parent / WEIGHTS))
        for path in sorted(runs.glob(f"*/student*/*/{RESULT}"))
    }


def furthest(one: Path, other: Path) -> float:
    """The largest difference between the weights of the same students, all of which must be there."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys(), (ours.keys(), theirs.keys())
    assert ours
    return max(
        float((tensor - theirs[name_of][name]).abs().max())  # type: ignore[operator]
        for name_of, tensors in ours.items()
        for name, tensor in tensors.items()
    )


def main(folder: Path, kills: int, seed: int) -> None:
    """Kills until there were `kills`; prints how many, and how far weights were from those of one process at most."""
    facts.program_facts()  # once, for every fork
    decant.main(words("teacher", folder, "runs"), standalone_mode=False)
    decant.main(words("cache-logits", folder, "runs"), standalone_mode=False)
    assert published(folder / "store") is not None
    (cache,) = (folder / "store").glob("*.h5")
    chance, met, finished, out = random.Random(seed), 0, 0, folder / "said"
    found = dict.fromkeys(KINDS, 0.0)
    for kind, settings in KINDS.items():
        given = words("student", folder, f"alone-{kind}", *settings, f"cache.from={cache}")
        decant.main(given, standalone_mode=False)
    while met < kills or finished < len(KINDS):
        kind, runs = list(KINDS)[finished % len(KINDS)], f"runs-{finished}"
        given = words("student", folder, runs, *KINDS[kind], f"cache.from={cache}")
        if kind == "seeds" and chance.random() < 0.5:
            given.append("--together")
        if chance.random() < 0.2:  # a process alone ends what ranks have begun
            done = ended({start(given, {}, out)}, PATIENCE) != {}
        else:
            after = chance.uniform(0.0, LONGEST) if met < kills else None
            done = bool(one_start(given, chance.randint(2, 3), after, chance, out))
            met += not done
        if done:
            difference = furthest(folder / f"alone-{kind}", folder / runs)
            found[kind] = max(found[kind], difference)
            assert difference <= TOLERANCE[kind], f"{runs}, {kind}: {difference}"
            finished += 1
            print(f"{met} kills, {finished} times finished", file=sys.stderr, flush=True)
    print(
        f"{met} kills, {finished} times finished; by seeds {found['seeds']}, by all ranks {found['batch']:.1e} apart"
    )


if __name__ == "__main__":
    ending._LINGERING_SECONDS = 0.5  # nobody but this script ends the others
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
