"""Whether a record says one thing: its fields are what they may be, and its parts fit each other."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from wireheading.records.means import means, published_means, rewards_of
from wireheading.records.schema import OWN_ARRAYS, ImportedRun, RecordedEvaluation, RecordedRun
from wireheading.study.conditions import Condition
from wireheading.study.config import digest_of
from wireheading.tasks import TASKS
from wireheading.tasks.grades import ParseStatus

PUBLISHED_HISTORIES = ("rewards", "accuracies", "grades", "losses")
"""What the published study's code kept of each round. An imported record holds each of them as `original_…`."""


def problem_of(record: Mapping[str, Any]) -> str | None:
    """The first thing that is wrong with a record, as parsed, in words; None if nothing is."""
    try:
        run = (ImportedRun if "imported" in record else RecordedRun).model_validate(record)
    except ValidationError as error:
        return _told(error)
    names = run.run
    if names.task not in TASKS:
        return f"run names the unknown task {reprlib.repr(names.task)}"
    for name, values in run:
        if isinstance(values, list) and name not in ("evaluations", *OWN_ARRAYS) and len(values) != run.rounds:
            return f"{name} has {len(values)} values for {run.rounds} rounds"
    if told := _unlike_spec(run):
        return told
    try:
        condition = Condition.of(run.spec)
    except ValidationError as error:
        return f"spec.condition: {_told(error)}"
    if isinstance(run, ImportedRun):
        return _unlike_means(run, _imported_means(run, condition))
    return _problem_of_run(run, condition)


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    *path, last = first["loc"][: 2 if first["loc"][0] != "evaluations" else 4]
    place = ".".join(map(str, path)) + (f"[{last}]" if isinstance(last, int) else f".{last}" if path else str(last))
    if first["type"] == "missing":
        return f"has no {place}"
    return f"{place} = {reprlib.repr(first['input'])} is not valid ({first['msg']})"


def _unlike_spec(run: RecordedRun | ImportedRun) -> str | None:
    """What does not fit the settings that the record states."""
    if digest_of(run.spec) != run.digest:
        return "spec does not have the digest that the record states"
    named = run.run
    rounds = run.spec["rounds"]
    stated = [run.spec["seed"], *(run.spec[part]["name"] for part in ("model", "task", "condition"))]
    if stated != [named.seed, named.model, named.task, named.condition]:
        return "run names another run than spec"
    if run.rounds > rounds or (run.rounds != rounds and run.status in ("complete", "imported")):
        return f"has {run.rounds} of {rounds} rounds but says {run.status}"
    return None


def _imported_means(run: ImportedRun, condition: Condition) -> dict[str, Any]:
    histories = {name: getattr(run, f"original_{name}") for name in PUBLISHED_HISTORIES}
    return published_means(histories, graded=condition.grades)


def _unlike_means(run: RecordedRun | ImportedRun, expected: Mapping[str, Any]) -> str | None:
    for name, value in expected.items():
        stated = getattr(run, name)
        if (stated is None) != (value is None) or (value is not None and not math.isclose(stated, value, abs_tol=1e-9)):
            return f"{name} = {stated} but its rounds give {value}"
    return None


def _problem_of_run(run: RecordedRun, condition: Condition) -> str | None:
    for name in run.transcripts:
        if not name.startswith(f"{run.run.condition}.") or {"/", "\\"} & set(name):
            return f"transcripts names {name!r}, which is no file of the run"
    arrays = {name: values for name, values in run if isinstance(values, list)}
    for name, column in OWN_ARRAYS.items():
        rounds = run.rounds if column in condition.columns else 0
        if len(arrays[name]) != rounds:
            return f"{name} has {len(arrays[name])} values for {rounds} rounds of its condition"
    return (
        _unlike("grades", run.grades, run.parse_status)
        or _unlike_rewards(run, condition, arrays)
        or _unlike_means(run, means(run.run.task, condition, arrays))
        or _uneven(run.evaluations)
        or _unlike_transfer(run)
        or _unfinished(run)
    )


def _unlike_rewards(run: RecordedRun, condition: Condition, arrays: Mapping[str, Any]) -> str | None:
    """The first reward that is not what the condition pays for the round's score, grade and audit."""
    original = run.spec["measures"] == "original"
    scores, grades = (run.original_scores, run.original_grades) if original else (run.scores, run.grades)
    for index, (paid, due) in enumerate(zip(run.rewards, rewards_of(condition, scores, grades, arrays), strict=True)):
        if not math.isclose(paid, due, abs_tol=1e-9):
            return f"rewards[{index}] = {paid} but its round gives {due}"
    if condition.pays_grade_apart:
        for index, (paid, score, grade) in enumerate(zip(run.grade_rewards, scores, grades, strict=True)):
            due = condition.pays_grade(index, score, grade)
            if not math.isclose(paid, due, abs_tol=1e-9):
                return f"grade_rewards[{index}] = {paid} but its round gives {due}"
    return None


def _unlike(name: str, grades: Sequence[float | None], statuses: Sequence[ParseStatus]) -> str | None:
    for index, (grade, status) in enumerate(zip(grades, statuses, strict=True)):
        if (grade is None) == (status == "readable"):
            return f"{name}[{index}] = {grade} although it is {status}"
    return None


def _uneven(evaluations: Sequence[RecordedEvaluation]) -> str | None:
    """What does not fit within or between evaluations."""
    for index, seen in enumerate(evaluations):
        place = f"evaluations.{index}"
        if not seen.items:
            return f"{place} has no items"
        for name, values in seen:
            if isinstance(values, list) and len(values) != len(seen.items):
                return f"{place}.{name} has {len(values)} values for {len(seen.items)} items"
        for grades, statuses in (("grades", "parse_status"), ("base_grades", "base_parse_status")):
            if told := _unlike(f"{place}.{grades}", getattr(seen, grades), getattr(seen, statuses)):
                return told
        if seen.items != evaluations[0].items[: len(seen.items)]:
            return f"{place}.items are not the first of evaluations.0.items"
        if index and seen.round <= evaluations[index - 1].round:
            return f"{place}.round = {seen.round} does not come after the one before"
    return None


def _unlike_transfer(run: RecordedRun) -> str | None:
    """What does not fit in the grades of other tasks' answers: a complete run has those that its spec names."""
    wanted = set(run.spec.get("transfer", ())) if run.status == "complete" else set()
    if set(run.transfer) != wanted:
        return f"transfer has {', '.join(run.transfer) or 'nothing'} and not {', '.join(sorted(wanted)) or 'nothing'}"
    for task, graded in run.transfer.items():
        for name, values in graded:
            if len(values) != len(graded.items):
                return f"transfer.{task}.{name} has {len(values)} values for {len(graded.items)} items"
    return None


def _unfinished(run: RecordedRun) -> str | None:
    if not run.evaluations or run.evaluations[0].round != 0:
        return "has no held-out evaluation before training"
    last = run.evaluations[-1]
    if last.round > run.rounds:
        return f"has a held-out evaluation after round {last.round} of {run.rounds}"
    whole = last.round == run.rounds and len(last.items) == len(run.evaluations[0].items)
    if run.status == "complete" and not whole:
        return "has no held-out evaluation of all items after its last round"
    return None
