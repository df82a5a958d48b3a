"""The record of a run: one JSON file that says what it is, shows whether it is whole, and is never half-written.

A record has one top-level key a line. `digest` comes first, so that a file's head tells which settings made it.
`provenance` comes last, and its last entry is the SHA-256 of every byte before that entry's value: a truncated or
edited file cannot pass for a record.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wireheading.errors import InputError
from wireheading.files import replacing
from wireheading.records.consistency import problem_of
from wireheading.records.means import means
from wireheading.records.schema import OWN_ARRAYS
from wireheading.study.config import Run, Study
from wireheading.study.paths import names_in

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
    "fixed_base_grades": "fixed_base_grade",
    "fixed_gold_grades": "fixed_gold_grade",
    "fixed_wrong_grades": "fixed_wrong_grade",
    "original_scores": "original_score",
    "original_grades": "original_grade",
}
"""The arrays of a held-out evaluation with one value an item, and the column that each is made of."""

TRANSFER_ARRAYS = {"items": "item", "gold_grades": "gold_grade", "wrong_grades": "wrong_grade"}
"""The arrays of the grades of another task's fixed answers, and the column that each is made of. The base model's
grades of the same answers have `base_` before their names."""

_HEAD = re.compile(rb'\{"digest": "([0-9a-f]{64})",\n"version": (\d+),\n')
_TAIL = re.compile(rb'"sha256": "([0-9a-f]{64})"\}\}\n')
_INPUTS = re.compile(rb'\n"inputs": ([^\n]*),\n')
_HALF = re.compile(r"\\u[dD]")  # may be half of a character, which no file can hold
_TAIL_LENGTH = len(b'"sha256": ""}}\n') + 64

State = Literal["valid", "missing", "stale", "corrupt"]


class RecordError(InputError):
    """A file that is not a valid record of its run. Its text is one line: file, problem, remedy.

    Attributes:
        state: What the file is worth.
    """

    def __init__(self, text: str, state: State = "corrupt"):
        super().__init__(text)
        self.state = state


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


def inspect_record(path: Path, digest: str, valid: set[str] | None = None) -> State:
    """Tells what a file is worth as the record of the settings with this digest.

    Args:
        path: The record's file.
        digest: The digest of the settings that it must have been made with.
        valid: SHA-256 of contents that were found valid before, which are not read again; that of this one is added
            if it is valid. The bytes are checked in any case.
    """
    try:
        data = path.read_bytes()
        sha256 = _seal(path, data, digest)
        if valid is None or sha256 not in valid:
            _content(path, data)
            (set() if valid is None else valid).add(sha256)
    except FileNotFoundError:
        return "missing"
    except RecordError as error:
        return error.state
    return "valid"


def seal_of(path: Path) -> str | None:
    """The SHA-256 that stands at the end of a record; None where there is none. Only the end is read."""
    try:
        with path.open("rb") as file:
            file.seek(-_TAIL_LENGTH, os.SEEK_END)
            tail = _TAIL.fullmatch(file.read())
    except OSError:
        return None
    return tail[1].decode() if tail else None


def read_record(path: Path, digest: str) -> dict[str, Any]:
    """Reads a record and verifies it.

    Args:
        path: The record's file.
        digest: The digest of the settings that it must have been made with.

    Raises:
        RecordError: The file is missing, damaged, of another version, made with other settings, names another run
            than its path, or holds what a record cannot hold or what does not fit the rest of it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record; run it", "missing") from None
    _seal(path, data, digest)
    return _content(path, data)


def recorded_inputs(path: Path) -> dict[str, str]:
    """What a valid record states of its inputs, without reading the rest; nothing where it is gone."""
    try:
        line = _INPUTS.search(path.read_bytes())
    except FileNotFoundError:
        return {}
    inputs: dict[str, str] = json.loads(line[1]) if line else {}
    return inputs


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
    adapter: Mapping[str, str] | None = None,
    transfer: Mapping[str, tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]] | None = None,
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
        provenance: What it ran on; differs likewise.
        adapter: SHA-256 of the files of the adapter, if it was kept.
        transfer: Rows of the base model's and of the policy's grades of other tasks' fixed answers, if it gave any.
    """
    condition = study.conditions[run.condition]
    own = {name: field for name, field in OWN_ARRAYS.items() if field in condition.columns}
    arrays: dict[str, list[Any]] = {
        name: [row[field] for row in rows] for name, field in {**ROUND_ARRAYS, **own}.items()
    }
    return {
        "digest": study.digest(run),
        "version": VERSION,
        "run": run._asdict(),
        "status": status,
        "problem": problem,
        "rounds": len(rows),
        **means(run.task, condition, arrays),
        **arrays,
        "evaluations": [
            {"round": round_, **{name: [row[field] for row in rows_] for name, field in ITEM_ARRAYS.items()}}
            for round_, rows_ in evaluations.items()
        ],
        **({"transfer": {task: _transfer(*rows_) for task, rows_ in transfer.items()}} if transfer else {}),
        "transcripts": dict(transcripts),
        **({"adapter": dict(adapter)} if adapter else {}),
        "inputs": dict(inputs),
        "spec": study.spec(run),
        "timing": dict(timing),
        "provenance": dict(provenance),
    }


def _transfer(base: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    own = {name: [row[field] for row in rows] for name, field in TRANSFER_ARRAYS.items()}
    names = list(TRANSFER_ARRAYS.items())[1:]
    return {**own, **{f"base_{name}": [row[field] for row in base] for name, field in names}}


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _seal(path: Path, data: bytes, digest: str) -> str:
    """Checks that a record's bytes are whole and of these settings, and returns the SHA-256 in its last entry.

    Raises:
        RecordError: They are not.
    """
    head, tail = _HEAD.match(data), _TAIL.fullmatch(data[-_TAIL_LENGTH:])
    # The checksum covers everything up to the opening quote of its own value.
    whole = hashlib.sha256(data[: -(64 + len(b'"}}\n'))]).hexdigest()
    if head is None or tail is None or whole != tail[1].decode():
        raise RecordError(f"{path}: truncated or edited (its checksum does not fit); run it again", "corrupt")
    if int(head[2]) != VERSION:
        raise RecordError(f"{path}: a record of version {int(head[2])}, not {VERSION}; run it again", "stale")
    if head[1].decode() != digest:
        raise RecordError(f"{path}: made with other settings (digest {head[1].decode()[:8]}…); run it again", "stale")
    return whole


def _content(path: Path, data: bytes) -> dict[str, Any]:
    """Parses a record and checks what it says.

    Raises:
        RecordError: It holds what a record cannot hold, or is that of another run.
    """
    try:
        text = data.decode()
        record: dict[str, Any] = json.loads(text, parse_constant=_not_json, parse_int=_integer)
        if _HALF.search(text):
            _dumps(record).encode()
        problem = problem_of(record)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    if problem:
        raise RecordError(f"{path}: {problem}; run it again", "corrupt")
    named = [str(name) for name in record["run"].values()]
    if named != names_in(path):
        raise RecordError(f"{path}: is the record of {'/'.join(named)}; move it to its own place", "corrupt")
    return record


def _not_json(constant: str) -> float:
    raise ValueError(f"holds {constant}, which is no number")


def _integer(digits: str) -> int:
    """An integer that tables can hold."""
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"holds an integer of {len(digits)} digits")
    return value
