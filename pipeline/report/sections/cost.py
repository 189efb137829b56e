"""The cost of each phase, the cost of a live teacher, and when the cache has paid for itself."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from decant.cache import CacheError, LogitCache
from decant.pipeline.errors import NotMadeError, PipelineError
from decant.pipeline.phases.cost import time_teacher
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section, seconds
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.notes import pass_of
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.epoch_log import read_epochs
from decant.pipeline.training.loading import default_workers

_NOTED = "as recorded when the cache was made"
_NOTED_IN_PART = "by the rows whose time was recorded: others were there already"
_ESTIMATED = "estimated from a few batches that were timed now, as no pass was recorded"


@dataclass(frozen=True)
class Teaching:
    """The cost of the teacher for students like the focus: once with a cache, for every student without."""

    pass_seconds: float
    """Seconds of the teacher's pass that made the cache."""
    how_known: str
    epoch_seconds: float
    """Seconds that a live teacher would add to each epoch of a student; reading inputs is not counted."""
    epochs: int
    """Epochs of one student."""
    students: int
    """Students in the report that were trained on the cache."""
    epochs_learnt: int
    """Epochs of all of those together, which may differ in number."""

    @property
    def live_seconds(self) -> float:
        """Seconds of a live teacher for one student."""
        return self.epoch_seconds * self.epochs

    @property
    def pays_after(self) -> int:
        """The number of students after which the cache has cost less than a live teacher."""
        return math.ceil(self.pass_seconds / self.live_seconds)

    @property
    def saved_seconds(self) -> float:
        """Seconds that live teachers of these students would have taken beyond the pass; negative if the pass took
        longer.
        """
        return self.epochs_learnt * self.epoch_seconds - self.pass_seconds


def cost(subject: Subject) -> Section:
    """Seconds of every phase, and of the teacher with and without the cache."""
    name, title = "cost", "What it cost"
    try:
        teacher_cost, problem = teaching(subject), None
    except (PipelineError, CacheError, OSError) as error:
        teacher_cost, problem = None, str(error)
    phases: list[tuple[str, ...]] = [
        (
            f"{row.name}, {row.whole_kind}",
            f"{len(row.results)}",
            seconds(statistics.fmean(result.seconds for result in row.results)),
            seconds(sum(result.seconds for result in row.results)),
        )
        for row in subject.rows
    ]
    if teacher_cost is None:
        return Section(name, title, {"phases": phases, "teaching": None, "problem": problem})
    passes, teachers = len(subject.cache.members), sum(row.first.kind == "teacher" for row in subject.rows)
    each, whole = seconds(teacher_cost.pass_seconds / passes), seconds(teacher_cost.pass_seconds)
    phases.insert(teachers, ("teacher's pass, into the cache", f"{passes}", each, whole))
    return Section(
        name,
        title,
        {
            "phases": phases,
            "teaching": teacher_cost,
            "problem": None,
            "answer": _answer(teacher_cost, device_name(subject.device)),
        },
        {"teaching": charts.rising(*_points(teacher_cost))},
    )


def teaching(subject: Subject) -> Teaching:
    """The cost of the focus's teacher, or of all of its teachers. Raises NotMadeError if the cache or a teacher is
    missing.
    """
    settings, viewed = subject.focus.recipe.settings, subject.splits.student_train
    workers = max(1, default_workers(viewed.data.lazy))
    taken, computing, ways = 0.0, 0.0, set[str]()
    for member in subject.cache.members:
        each = time_teacher(
            load_network(_teacher_of(member, subject)), viewed, settings.cache, subject.device
        )
        rows, known = member.num_samples * member.num_views, pass_of(subject.base, member.manifest.key)
        a_row, how_known = each.loading / workers + each.computing, _ESTIMATED
        # A call that went on with a killed one's work has noted its own rows only.
        if known is not None and known.rows:
            a_row = known.seconds / known.rows
            how_known = _NOTED if known.rows == rows else _NOTED_IN_PART
        taken, computing = taken + a_row * rows, computing + each.computing
        ways.add(how_known)
    students = [result for result in subject.results if result.cache == subject.focus.result.cache]
    return Teaching(
        pass_seconds=taken,
        how_known="; ".join(sorted(ways)),
        epoch_seconds=computing * len(viewed),
        epochs=settings.student.epochs,
        students=len(students),
        epochs_learnt=sum(
            len(read_epochs(student.folder)) or settings.student.epochs for student in students
        ),
    )


def _teacher_of(cache: LogitCache, subject: Subject) -> Result:
    """The network whose logits a cache holds. Raises NotMadeError if it is not in the report."""
    weights = cache.manifest.identity["teacher"].get("weights_sha256")
    for teacher in subject.teachers:
        if teacher.weights_sha256 == weights:
            return teacher
    raise NotMadeError(f"{subject.base}: the teacher whose logits {cache.path} holds is not here")


def _answer(teacher_cost: Teaching, where: str) -> str:
    """When the cache has paid for itself, in words."""
    epochs = "one epoch" if teacher_cost.epochs == 1 else f"{teacher_cost.epochs:,} epochs"
    live = f"{seconds(teacher_cost.live_seconds)} for each student of {epochs}"
    after = "the first student" if teacher_cost.pays_after == 1 else f"{teacher_cost.pays_after:,} students"
    saved = teacher_cost.saved_seconds
    so_far = "the one student" if teacher_cost.students == 1 else f"the {teacher_cost.students:,} students"
    verdict = f"saved {seconds(saved)}" if saved >= 0 else f"cost {seconds(-saved)} more than it saved"
    return (
        f"The teacher's pass took {seconds(teacher_cost.pass_seconds)} ({teacher_cost.how_known}). "
        f"A live teacher would take {live}, by batches timed now on {where}: "
        f"the cache has paid for itself after {after}; over {so_far} of this page it {verdict}."
    )


def _points(teacher_cost: Teaching) -> tuple[list[dict[str, float | str]], str, str, list[str]]:
    """The total cost of the teacher by number of students, for `charts.rising`."""
    series = ["with the cache", "a live teacher"]
    last = min(100, max(5, teacher_cost.students, 2 * teacher_cost.pays_after))
    points: list[dict[str, float | str]] = []
    for count in range(last + 1):
        points.append({"series": series[0], "x": count, "y": teacher_cost.pass_seconds})
        points.append({"series": series[1], "x": count, "y": count * teacher_cost.live_seconds})
    return points, "students", "seconds of the teacher", series
