"""Which checkpoints of an output folder belong together, and which of them stay.

A script that is started anew writes among the checkpoints of the training before; so does one that goes on from an
older checkpoint. With each of these a new course begins. Courses are counted, since clocks go back and copied folders
have new times. A checkpoint's progress.json says of which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textune.errors import DataError, InputNotFoundError
from textune.files import read_json
from textune.training.checkpoint import CheckpointFolders, committed, found

PREFIX = "checkpoint"
FOLDERS = CheckpointFolders(PREFIX)
PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Course:
    """What a training went through without a turn.

    Attributes:
        number: courses of a folder are counted from 1; 0 for checkpoints of a textune that did not count.
        began: the step of the checkpoint in this folder that it went on from; 0 for none.
    """

    number: int = 0
    began: int = 0


def next_course(root: Path, folder: Path | None) -> Course:
    """The course of a training that goes on from a checkpoint, or begins anew.

    It stays the same where nothing was written behind the checkpoint.
    """
    courses = _courses(root)
    newest = max((course.number for course in courses.values()), default=0)
    inside = folder is not None and folder.resolve().parent == root.resolve()
    step = _step(folder) if folder is not None and inside else None
    if step is None or step not in courses:
        return Course(newest + 1)
    if step == max(courses) and courses[step].number == newest:
        return courses[step]
    return Course(newest + 1, step)


def last_course(root: Path) -> list[int]:
    """The steps of the last course's checkpoints and of those that it came from, latest first.

    What an earlier training left there, and what lies behind a turn, is not among them.
    """
    courses = _courses(root)
    return _lineage(courses, Course(max((course.number for course in courses.values()), default=0)))


def is_of_course(folder: Path, course: Course) -> bool:
    """Whether a checkpoint is there and was written by this course or by those that it came from."""
    # What says nothing of its course may be another program's.
    return bool(_progress(folder)) and _step(folder) in _lineage(_courses(folder.parent), course)


def course_of(folder: Path) -> Course:
    """The course that a checkpoint says it is of."""
    values = _progress(folder)
    return Course(int(values["course"]), int(values["began"])) if values else Course()


def _lineage(courses: dict[int, Course], course: Course) -> list[int]:
    """The steps of a course's checkpoints and of those that it came from, latest first."""
    number, bound = course.number, max(courses, default=0)
    steps: list[int] = []
    while True:
        own = [step for step, other in courses.items() if other.number == number and step <= bound]
        steps += sorted(own, reverse=True)
        bound = max((courses[step].began for step in own), default=course.began)
        if bound not in courses or courses[bound].number >= number:
            return steps
        number = courses[bound].number


def superfluous(root: Path, *, last: int, best: str | None, limit: int, needs_best: bool) -> list[int]:
    """The steps of the checkpoints that a limit leaves no place for, oldest courses first.

    The last and the best always stay; with a limit of 1 both, as in transformers.

    Args:
        last: the one that was just committed.
        best: the name of the best one's folder.
        needs_best: whether training can go on only from a checkpoint whose best one is there too.
    """
    courses, steps = _courses(root), committed(root, folders=FOLDERS)
    steps.sort(key=lambda step: (courses[step].number, step))
    kept = {last} | {step for step in steps if FOLDERS.folder(root, step).name == best}
    for step in reversed(steps):
        needed = _needed(FOLDERS.folder(root, step)) if needs_best else {step}
        if needed <= set(steps) and len(kept | needed) <= limit:
            kept |= needed
    return [step for step in steps if step not in kept]


def _needed(folder: Path) -> set[int]:
    """The steps of a checkpoint and of the best one that it names."""
    best = _progress(folder).get("best")
    return {step for step in (_step(folder), _step(Path(str(best)))) if step is not None}


def _step(folder: Path) -> int | None:
    prefix, _, step = folder.name.rpartition("-")
    return int(step) if prefix == PREFIX and step.isdecimal() else None


def _courses(root: Path) -> dict[int, Course]:
    """By step. What says nothing of its course counts as of the last, so that its damage is found."""
    read = {step: _progress(FOLDERS.folder(root, step)) for step in found(root, folders=FOLDERS)}
    known = {step: Course(int(values["course"]), int(values["began"])) for step, values in read.items() if values}
    newest = max((course.number for course in known.values()), default=0)
    return {step: known.get(step, Course(newest)) for step in read}


def _progress(folder: Path) -> dict[str, Any]:
    try:
        values = read_json(folder / PROGRESS_FILE)
    except (InputNotFoundError, DataError):
        return {}
    if not isinstance(values, dict) or not {type(values.get(name, 0)) for name in ("course", "began")} <= {int}:
        return {}
    return {"course": 0, "began": 0, **values}
