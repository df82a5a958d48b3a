"""Records → tables: one of rounds and one of runs, of the records that can be believed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wireheading.config import Run, Study
from wireheading.files import replacing
from wireheading.records import ROUND_ARRAYS, RecordError, checkpoint_folder, read_record

SUMMARIES = (
    "avg_reward",
    "avg_score",
    "avg_accuracy",
    "avg_grade",
    "avg_loss",
    "grade_inflation",
    "original_avg_reward",
    "original_avg_accuracy",
    "original_avg_grade",
    "original_avg_loss",
    "original_grade_inflation",
)
"""Means that a record states of itself."""

CURVES = ("reward", "score", "accuracy", "grade", "inflation")
"""Curves whose start and end are in the table of runs."""

KEYS = ("seed", "model", "task", "condition")

ROUNDS_SCHEMA = pa.schema(
    [
        ("seed", pa.int64()),
        *((name, pa.dictionary(pa.int16(), pa.string())) for name in ("model", "task", "condition")),
        ("round", pa.int32()),
        ("item", pa.string()),
        ("parse_status", pa.dictionary(pa.int16(), pa.string())),
        ("truncated", pa.bool_()),
        *(
            (column, pa.float64())
            for column in ROUND_ARRAYS.values()
            if column not in ("item", "parse_status", "truncated")
        ),
    ]
)
"""Columns of the table of rounds; grades are null where there was none that could be read."""


def write_tables(study: Study, rounds_path: Path, runs_path: Path, report: Callable[[str], None]) -> None:
    """Writes the table of rounds and the table of runs, and removes the checkpoints of the records in them.

    Args:
        study: The study, whose runs' records are read.
        rounds_path: Parquet file with a row for each round of each run.
        runs_path: Parquet file with a row for each run.
        report: Is told of every record that is not believed and so is in neither table.
    """
    runs: list[dict[str, Any]] = []
    with replacing(rounds_path) as temporary, pq.ParquetWriter(temporary, ROUNDS_SCHEMA) as writer:
        for run in study.runs():
            path = study.record_path(run)
            try:
                record = read_record(path, study.digest(run))
            except RecordError as error:
                report(str(error))
                continue
            writer.write_table(_rounds_of(run, record))
            runs.append(_summary_of(run, record))
            # The run is safe now; with its checkpoint left, a record deleted later would not really be run again.
            if (checkpoint := checkpoint_folder(path)).exists():
                shutil.rmtree(checkpoint)
    with replacing(runs_path) as temporary:
        pd.DataFrame(runs, columns=_columns()).to_parquet(temporary, index=False)
    report(f"{len(runs)} of {len(study.runs())} records are in the tables")


def edges(values: Sequence[float | None]) -> tuple[float, float]:
    """The start and the end of a curve: the means over the first and last eighth of rounds, at least one.

    Rounds without a value are left out; a part without any is NaN.
    """
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    part = max(1, len(array) // 8)
    start, end = (array[:part], array[-part:]) if len(array) else (array, array)
    return _mean(start), _mean(end)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _rounds_of(run: Run, record: Mapping[str, Any]) -> pa.Table:
    count = record["rounds"]
    columns = {
        **{name: [value] * count for name, value in run._asdict().items()},
        "round": range(count),
        **{column: record[name] for name, column in ROUND_ARRAYS.items()},
    }
    return pa.Table.from_pydict(columns, schema=ROUNDS_SCHEMA)


def _summary_of(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {column: record[name] for name, column in ROUND_ARRAYS.items()}
    arrays["inflation"] = [
        None if grade is None else grade - score for grade, score in zip(arrays["grade"], arrays["score"], strict=True)
    ]
    row = {
        **run._asdict(),
        "status": record["status"],
        "rounds": record["rounds"],
        **{name: record[name] for name in SUMMARIES},
        "unreadable": record["unreadable_grades"],
        # An imported record holds none of these.
        "truncated": sum(value is True for value in arrays["truncated"]),
        "largest_logprob_gap": max((gap for gap in arrays["logprob_gap"] if gap is not None), default=None),
        "seconds": record["timing"]["seconds"],
        "code": record["provenance"]["code"],
    }
    for curve in CURVES:
        row[f"start_{curve}"], row[f"end_{curve}"] = edges(arrays[curve])
    return row


def _columns() -> list[str]:
    edge_columns = [f"{edge}_{curve}" for curve in CURVES for edge in ("start", "end")]
    facts = ["unreadable", "truncated", "largest_logprob_gap", "seconds", "code"]
    return [*KEYS, "status", "rounds", *SUMMARIES, *facts, *edge_columns]
