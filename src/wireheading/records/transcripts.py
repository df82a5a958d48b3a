"""The transcript of a run: every prompt, response and grade of it, in a Parquet file beside its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wireheading.files import replacing
from wireheading.records.record import RecordError

SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("item", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("response_tokens", pa.list_(pa.int32())),
        ("truncated", pa.bool_()),
        ("score", pa.float64()),
        ("accuracy", pa.int8()),
        ("original_score", pa.float64()),
        ("grade_text", pa.string()),
        ("grade_tokens", pa.list_(pa.int32())),
        ("grade", pa.float64()),
        ("parse_status", pa.string()),
        ("original_grade", pa.float64()),
        ("reward", pa.float64()),
        ("baseline", pa.float64()),
        ("advantage", pa.float64()),
        ("loss", pa.float64()),
        ("grad_norm", pa.float64()),
        ("logprob_gap", pa.float64()),
    ]
)
"""Columns of every transcript, one row a round."""

OWN_SCHEMA = pa.schema(
    [
        ("audited", pa.bool_()),
        ("grade_reward", pa.float64()),
        ("grade_baseline", pa.float64()),
        ("grade_advantage", pa.float64()),
        ("kl", pa.float64()),
    ]
)
"""Further columns, of runs in some conditions (`Condition.columns`)."""

HELDOUT_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("item", pa.string()),
        ("response", pa.string()),
        ("truncated", pa.bool_()),
        ("score", pa.float64()),
        ("accuracy", pa.int8()),
        ("greedy_accuracy", pa.int8()),
        ("original_score", pa.float64()),
        *(
            (prefix + name, kind)
            for prefix in ("", "base_")
            for name, kind in (
                ("grade_text", pa.string()),
                ("grade", pa.float64()),
                ("parse_status", pa.string()),
                ("original_grade", pa.float64()),
                ("soft_grade", pa.float64()),
                ("soft_mass", pa.float64()),
            )
        ),
        *((f"fixed_{answer}_grade", pa.float64()) for answer in ("base", "gold", "wrong")),
    ]
)
"""Columns of the transcript of held-out evaluations, one row an item; `round` counts the rounds before."""


def write_transcript(path: Path, rows: Sequence[Mapping[str, Any]], own: Sequence[str] = ()) -> None:
    """Writes what is kept of each round, `own` columns too, whole or not at all."""
    schema = pa.schema([*SCHEMA, *(OWN_SCHEMA.field(name) for name in own)])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_heldout(path: Path, evaluations: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """Writes what was seen in a run's held-out evaluations, whole or not at all."""
    rows = [{"round": round_, **row} for round_, rows in evaluations.items() for row in rows]
    table = pa.Table.from_pylist(rows, schema=HELDOUT_SCHEMA)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def transcript_bytes(record_path: Path, record: Mapping[str, Any], path: Path) -> bytes:
    """The bytes of a transcript, which are those that its record names.

    Args:
        record_path: The record's file.
        record: Its content.
        path: The transcript's file.

    Raises:
        RecordError: There is no such transcript, or it is not the one of this record.
    """
    if path.name not in record["transcripts"]:
        raise RecordError(f"{record_path}: names no transcript; run it again to have one")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such transcript; remove {record_path.name} to run it again") from None
    if hashlib.sha256(data).hexdigest() != record["transcripts"][path.name]:
        raise RecordError(
            f"{path}: is not the transcript that its record names (SHA-256); remove {record_path.name} to run it again"
        )
    return data


def read_transcript(record_path: Path, record: Mapping[str, Any], path: Path) -> pa.Table:
    """The rows of a transcript, checked as `transcript_bytes` does.

    Raises:
        RecordError: There is no such transcript, or it is not the one of this record.
    """
    return pq.read_table(pa.BufferReader(transcript_bytes(record_path, record, path)))
