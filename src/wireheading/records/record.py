"""The record of a run: one JSON file that says what it is, proves that it is whole, and is never half-written.

A record has one top-level key a line. `digest` comes first, so that a file's head tells which settings made it.
`provenance` comes last, and its last entry is the SHA-256 of every byte before that entry's value: a truncated or
edited file cannot pass for a record.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.records.schema import problem_of
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study
from wireheading.tasks import TASKS

VERSION = 1
"""Version of the record's shape; a record of another version is not read."""

ROUND_ARRAYS = {
    "items": "item",
    "rewards": "reward",
    "scores": "score",
    "accuracies": "accuracy",
    "grades": "grade",
    "parse_status": "parse_status",
    "truncated": "truncated",
    "advantages": "advantage",
    "baselines": "baseline",
    "losses": "loss",
    "grad_norms": "grad_norm",
    "logprob_gaps": "logprob_gap",
    "original_scores": "original_score",
    "original_grades": "original_grade",
}
"""The record's arrays with one value a round, and the transcript's column that each is made of."""

ITEM_ARRAYS = {
    "items": "item",
    "scores": "score",
    "accuracies": "accuracy",
    "greedy_accuracies": "greedy_accuracy",
    "truncated": "truncated",
    "grades": "grade",
    "parse_status": "parse_status",
    "soft_grades": "soft_grade",
    "soft_masses": "soft_mass",
    "base_grades": "base_grade",
    "base_parse_status": "base_parse_status",
    "base_soft_grades": "base_soft_grade",
    "base_soft_masses": "base_soft_mass",
    "original_scores": "original_score",
    "original_grades": "original_grade",
}
"""The arrays of a held-out evaluation with one value an item, and the column that each is made of."""

ORIGINAL_HISTORIES = ("rewards", "accuracies", "grades", "losses")
"""What the published study's code kept of each round. An imported record holds each of them as `original_…`."""

_HEAD = re.compile(rb'\{"digest": "([0-9a-f]{64})",\n"version": (\d+),\n')
_TAIL = re.compile(rb'"sha256": "([0-9a-f]{64})"\}\}\n')
_TAIL_LENGTH = len(b'"sha256": ""}}\n') + 64

State = Literal["valid", "missing", "stale", "corrupt"]


class RecordError(InputError):
    """A file that cannot be believed as the record it should be. Its text is one line: file, problem, remedy."""


def checkpoint_folder(record: Path) -> Path:
    """Where the checkpoint of a record's run lies."""
    return record.with_suffix(".checkpoint")


def transcript_path(record: Path) -> Path:
    """Where the transcript of a record's run lies."""
    return record.with_suffix(".parquet")


def heldout_path(record: Path) -> Path:
    """Where the transcript of a run's held-out evaluations lies."""
    return record.with_suffix(".heldout.parquet")


def imported_path(record: Path) -> Path:
    """Where an imported history lies that is shorter than its run, so that the run has no record yet."""
    return record.with_suffix(".imported.json")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record whole or not at all.

    Args:
        path: The record's file.
        record: Its content; `digest` is the first key, `version` the second and `provenance` the last.

    Raises:
        ValueError: A number in it is NaN or infinite, which JSON cannot hold.
    """
    lines = [f"{json.dumps(key)}: {_dumps(value)}" for key, value in record.items()]
    # The closing brace of provenance is taken off, so that its checksum can be added as its last entry.
    text = ("{" + ",\n".join(lines)).removesuffix("}") + ', "sha256": "'
    data = text.encode()
    with replacing(path) as temporary:
        temporary.write_bytes(data + hashlib.sha256(data).hexdigest().encode() + b'"}}\n')


def inspect_record(path: Path, digest: str) -> State:
    """Tells whether a file is the whole record of the settings with this digest, without parsing it."""
    try:
        return _state(path.read_bytes(), digest)
    except FileNotFoundError:
        return "missing"


def read_record(path: Path, digest: str) -> dict[str, Any]:
    """Reads a record and verifies it.

    Args:
        path: The record's file.
        digest: The digest of the settings that it must have been made with.

    Raises:
        RecordError: The file is missing, damaged, of another version, made with other settings, names another run
            than its path, or holds a value that a record cannot hold.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; run it") from None
    state = _state(data, digest)
    if state == "corrupt":
        raise RecordError(f"{path}: truncated or edited (its checksum does not fit); run it again")
    if state == "stale":
        head = _HEAD.match(data)
        assert head is not None
        if int(head[2]) != VERSION:
            raise RecordError(f"{path}: a record of version {int(head[2])}, not {VERSION}; run it again")
        raise RecordError(f"{path}: made with other settings (digest {head[1].decode()[:8]}…); run it again")
    try:
        record: dict[str, Any] = json.loads(data, parse_constant=_not_json)
    except ValueError as error:
        raise RecordError(f"{path}: {error}; run it again") from None
    _check(path, record)
    return record


def make_record(
    study: Study,
    run: Run,
    inputs: Mapping[str, str],
    status: str,
    problem: str | None,
    rows: Sequence[Mapping[str, Any]],
    evaluations: Mapping[int, Sequence[Mapping[str, Any]]],
    transcripts: Mapping[str, str],
    timing: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Builds the record of a run that has ended.

    Args:
        study: The study's settings.
        run: Which run it is.
        inputs: SHA-256 of the weights, tokenizer and data that it read.
        status: `complete` or `diverged`.
        problem: What was not finite where it diverged, else None.
        rows: What is kept of each finished round.
        evaluations: Rows of the held-out evaluations by the number of rounds before them.
        transcripts: SHA-256 of the files with the transcripts, by their names.
        timing: How long it took; differs from one execution to the next.
        provenance: What it ran on; likewise.
    """
    graded = CONDITIONS[run.condition].grader != "none"
    arrays: dict[str, list[Any]] = {name: [row[field] for row in rows] for name, field in ROUND_ARRAYS.items()}
    return {
        "digest": study.digest(run),
        "version": VERSION,
        "run": run._asdict(),
        "status": status,
        "problem": problem,
        "rounds": len(rows),
        "avg_reward": _mean(arrays["rewards"]),
        "avg_score": _mean(arrays["scores"]),
        "avg_accuracy": _mean(arrays["accuracies"]),
        "avg_grade": _mean(arrays["grades"]),
        "avg_loss": _mean(arrays["losses"]),
        "grade_inflation": _mean(
            [
                None if grade is None else grade - score
                for grade, score in zip(arrays["grades"], arrays["scores"], strict=True)
            ]
        ),
        "unreadable_grades": sum(grade is None for grade in arrays["grades"]) if graded else 0,
        **original_means(original_histories(run.task, run.condition, arrays), graded=graded),
        **arrays,
        "evaluations": [
            {"round": round_, **{name: [row[field] for row in rows_] for name, field in ITEM_ARRAYS.items()}}
            for round_, rows_ in evaluations.items()
        ],
        "transcripts": dict(transcripts),
        "inputs": dict(inputs),
        "spec": study.spec(run),
        "timing": dict(timing),
        "provenance": dict(provenance),
    }


def original_histories(task: str, condition: str, arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Reward, accuracy, grade and loss of each round as the published study's code would have kept them.

    Args:
        task: The run's task.
        condition: Its condition.
        arrays: `original_scores`, `original_grades` and `losses`, a value a round.
    """
    scores, grades = arrays["original_scores"], arrays["original_grades"]
    by_grade = CONDITIONS[condition].reward == "grade"
    return {
        "rewards": [grade or 0.0 for grade in grades] if by_grade else list(scores),
        "accuracies": [float(TASKS[task].accurate(score)) for score in scores],
        "grades": list(grades),
        "losses": list(arrays["losses"]),
    }


def original_means(histories: Mapping[str, Sequence[Any]], *, graded: bool) -> dict[str, float | None]:
    """The means of a run in the published definitions: an unreadable grade is 0, inflation the grade less accuracy.

    Args:
        histories: Those of `original_histories`.
        graded: Whether the run asks for grades; if not, there are no means of them.
    """
    accuracies = histories["accuracies"]
    grades = [grade or 0.0 for grade in histories["grades"]]
    inflations = [grade - accuracy for grade, accuracy in zip(grades, accuracies, strict=True)]
    return {
        "original_avg_reward": _mean(histories["rewards"]),
        "original_avg_accuracy": _mean(accuracies),
        "original_avg_grade": _mean(grades) if graded else None,
        "original_avg_loss": _mean(histories["losses"]),
        "original_grade_inflation": _mean(inflations) if graded else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where there are none."""
    there = [value for value in values if value is not None]
    return math.fsum(there) / len(there) if there else None


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _state(data: bytes, digest: str) -> State:
    head, tail = _HEAD.match(data), _TAIL.fullmatch(data[-_TAIL_LENGTH:])
    if head is None or tail is None:
        return "corrupt"
    # The checksum covers everything up to the opening quote of its own value.
    if hashlib.sha256(data[: -(64 + len(b'"}}\n'))]).hexdigest() != tail[1].decode():
        return "corrupt"
    return "valid" if head[1].decode() == digest and int(head[2]) == VERSION else "stale"


def _check(path: Path, record: Mapping[str, Any]) -> None:
    problem = _problem_of_import(record) if "imported" in record else problem_of(record)
    if problem:
        raise RecordError(f"{path}: {problem}; run it again")
    run = record["run"]
    named = (str(run["seed"]), run["model"], run["task"], run["condition"])
    if named != (*path.parts[-4:-1], path.name.partition(".")[0]):
        raise RecordError(f"{path}: is the record of {'/'.join(named)}; move it to its own place")


def _problem_of_import(record: Mapping[str, Any]) -> str | None:
    """What is wrong with a record made of the published code's results, which has no held-out items."""
    rounds, wanted = record["rounds"], record["spec"]["rounds"]
    if record["status"] == "imported" and rounds != wanted:
        return f"has {rounds} of {wanted} rounds but says imported"
    for name in ROUND_ARRAYS:
        if len(record[name]) != rounds:
            return f"{name} has {len(record[name])} values for {rounds} rounds"
    return None


def _not_json(constant: str) -> float:
    raise ValueError(f"holds {constant}, which is no number")
