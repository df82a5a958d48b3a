"""Transcripts and items as the pages read them: checked against the record that names them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wireheading.records.record import RecordError, read_record
from wireheading.records.transcripts import HELDOUT_SCHEMA, SCHEMA, transcript_bytes
from wireheading.study.config import Run, Study
from wireheading.study.paths import heldout_path, transcript_path
from wireheading.tasks import TASKS

ROUNDS = pa.schema(
    [
        SCHEMA.field(name)
        for name in (
            "round", "item", "prompt", "response", "grade_text", "grade", "score", "reward", "parse_status", "truncated"
        )
    ]
)  # fmt: skip
"""The columns of a transcript that pages show."""

HELDOUT = pa.schema(
    [
        HELDOUT_SCHEMA.field(name)
        for name in ("round", "item", "response", "grade_text", "grade", "score", "parse_status", "truncated")
    ]
)
"""Those of a transcript of held-out evaluations."""


def read_transcript(study: Study, run: Run) -> tuple[dict[str, Any], pa.Table]:
    """A run's record, and the columns `ROUNDS` of its transcript.

    Raises:
        RecordError: One of them is not there or not valid.
    """
    path = study.record_path(run)
    record = read_record(path, study.digest(run))
    return record, _checked(record, path, transcript_path(path), ROUNDS)


def read_heldout(study: Study, run: Run, record: Mapping[str, Any]) -> pa.Table:
    """The columns `HELDOUT` of a run's held-out evaluations; none where its record names none.

    Raises:
        RecordError: They are not there or not valid.
    """
    path = study.record_path(run)
    if heldout_path(path).name not in record["transcripts"]:
        return HELDOUT.empty_table()
    return _checked(record, path, heldout_path(path), HELDOUT)


def read_items(study: Study, task: str, part: str, inputs: Mapping[str, str]) -> dict[str, Mapping[str, Any]]:
    """A task's frozen items by id; none if they are not here, or are others than a record was made of.

    Args:
        study: The study.
        task: The task.
        part: `train` or `heldout`.
        inputs: The SHA-256 of what the record was made of, by file name.
    """
    path = study.items_folder(task) / f"{part}.jsonl"
    if not path.is_file():
        return {}
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != inputs.get(path.name):
        return {}
    # Not splitlines: a text may hold other characters that end a line.
    items = map(json.loads, data.decode().removesuffix("\n").split("\n"))
    return {item["id"]: item for item in items}


def gold_answer(task: str, item: Mapping[str, Any] | None) -> str | None:
    """The answer that an item asks for; None where the item is not known."""
    return None if item is None else TASKS[task].gold_answer(item)


def common_ends(texts: Sequence[str]) -> tuple[str, str]:
    """What different texts all begin and end with: a system prompt, an instruction, the tags of a chat template.

    Both ends are of whole words. Of a single text nothing is common.
    """
    different = list(dict.fromkeys(texts))
    if len(different) < 2:
        return "", ""
    opening = re.sub(r"[^\s>]*\Z", "", _common_start(different))
    ends = [text[len(opening) :][::-1] for text in different]
    closing = re.sub(r"[^\s<]*\Z", "", _common_start(ends))
    return opening, closing[::-1]


def _common_start(texts: Sequence[str]) -> str:
    """The characters that all texts begin with, which are those of the first and the last by the alphabet."""
    first, last = min(texts), max(texts)
    differ = (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1])
    return first[: next(differ, len(first))]


def _checked(record: Mapping[str, Any], record_path: Path, path: Path, schema: pa.Schema) -> pa.Table:
    data = transcript_bytes(record_path, record, path)
    try:
        return _columns_in(data, schema)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise RecordError(f"{path}: is no transcript ({error}); remove {record_path.name} to run it again") from None


def _columns_in(data: bytes, schema: pa.Schema) -> pa.Table:
    """Some columns of a transcript.

    Raises:
        pa.ArrowException, OSError, ValueError, KeyError: It is another file.
    """
    table = pq.read_table(pa.BufferReader(data)).select(schema.names).cast(schema)
    for name in {"round", "prompt", "response", "score", "reward"} & set(schema.names):
        if table[name].null_count:
            raise ValueError(f"{name} is missing in a round")
    for name in {"grade", "score", "reward"} & set(schema.names):
        if pc.any(pc.is_nan(table[name])).as_py():
            raise ValueError(f"{name} is not a number in a round")
    return table
