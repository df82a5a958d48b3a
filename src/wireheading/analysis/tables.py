"""Records → tables: of rounds, held-out items, transfer and runs, and one that says what each run's record is worth.

Only valid records are in the first four; the last names all others and why. Records are read one after the other, so
that memory does not grow with their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wireheading.files import replacing
from wireheading.records.cells import differing_inputs
from wireheading.records.consistency import PUBLISHED_HISTORIES
from wireheading.records.means import mean, published_histories
from wireheading.records.record import ITEM_ARRAYS, ROUND_ARRAYS, RecordError, read_record
from wireheading.records.schema import OWN_ARRAYS
from wireheading.study.conditions import Condition
from wireheading.study.config import Run, Study
from wireheading.study.paths import Tables

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

CURVES = (
    "reward",
    "score",
    "accuracy",
    "grade",
    "inflation",
    "original_reward",
    "original_accuracy",
    "original_inflation",
)
"""Curves whose start and end are in the table of runs."""

KEYS = ("seed", "model", "task", "condition")

KEY_FIELDS = (
    ("seed", pa.int64()),
    *((name, pa.dictionary(pa.int16(), pa.string())) for name in ("model", "task", "condition")),
    ("round", pa.int32()),
)

ROUNDS_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("item", pa.string()),
        ("parse_status", pa.dictionary(pa.int16(), pa.string())),
        ("truncated", pa.bool_()),
        *(
            (column, pa.float64())
            for column in ROUND_ARRAYS.values()
            if column not in ("item", "parse_status", "truncated")
        ),
        ("audited", pa.bool_()),
        *((column, pa.float64()) for column in OWN_ARRAYS.values() if column != "audited"),
    ]
)
"""Columns of the table of rounds; grades are null where there was none that could be read, and so is what only some
conditions have."""

HELDOUT_SCHEMA = pa.schema(
    [
        *KEY_FIELDS,
        ("item", pa.string()),
        ("truncated", pa.bool_()),
        *((name, pa.int8()) for name in ("accuracy", "greedy_accuracy")),
        *((name, pa.dictionary(pa.int16(), pa.string())) for name in ("parse_status", "base_parse_status")),
        *(
            (column, pa.float64())
            for column in ITEM_ARRAYS.values()
            if column not in ("item", "truncated", "accuracy", "greedy_accuracy", "parse_status", "base_parse_status")
        ),
    ]
)
"""Columns of the table of held-out items, a row for each item of each evaluation; `round` counts the rounds before."""

TRANSFER = ("gold_grades", "wrong_grades", "base_gold_grades", "base_wrong_grades")

TRANSFER_SCHEMA = pa.schema(
    [
        *KEY_FIELDS[:-1],
        ("graded", pa.dictionary(pa.int16(), pa.string())),
        ("item", pa.string()),
        *((name.removesuffix("s"), pa.float64()) for name in TRANSFER),
    ]
)
"""Columns of the table of transfer, a row for each held-out item of each other task whose fixed answers a run graded at
its end; `graded` is that task."""

TIMING = ("first_round", "rounds", "seconds", "evaluating_seconds")

PROVENANCE = (
    "written", "code", "device", "python", "torch", "transformers", "peft", "numpy",
    "batch", "chunk", "slots", "threads", "sha256",
)  # fmt: skip

CENSUS = (*KEYS, "state", "rounds", "problem", "cell_problem", *(f"timed_{name}" for name in TIMING), *PROVENANCE)
"""Columns of the table of records, which has a row for every run of the study. `state` is the status of a valid record,
else `missing` or `unusable`; `problem` says why, or what diverged. `cell_problem` says of every run of a model and task
why their records must not be compared, if so."""


def write_tables(study: Study, tables: Tables, report: Callable[[str], None]) -> None:
    """Writes all tables.

    The tables of rounds and of held-out items have one row group per run, so that they too can be read run by run;
    that of transfer has one per run and graded task.

    Args:
        study: The study, whose runs' records are read.
        tables: Where the tables go.
        report: Progress callback: every record that is invalid and so is only in the table of records.
    """
    runs: list[dict[str, Any]] = []
    census: list[dict[str, Any]] = []
    inputs: dict[Run, dict[str, str]] = {}
    with (
        replacing(tables.rounds) as rounds_file,
        replacing(tables.heldout) as heldout_file,
        replacing(tables.transfer) as transfer_file,
        pq.ParquetWriter(rounds_file, ROUNDS_SCHEMA) as rounds_writer,
        pq.ParquetWriter(heldout_file, HELDOUT_SCHEMA) as heldout_writer,
        pq.ParquetWriter(transfer_file, TRANSFER_SCHEMA) as transfer_writer,
    ):
        for run in study.runs():
            path = study.record_path(run)
            try:
                record = read_record(path, study.digest(run))
            except RecordError as error:
                report(str(error))
                state = "unusable" if path.exists() else "missing"
                census.append({**run._asdict(), "state": state, "problem": str(error)})
                continue
            rounds_writer.write_table(_rounds_of(run, record))
            heldout_writer.write_table(_heldout_of(run, record))
            for task, graded in record.get("transfer", {}).items():
                transfer_writer.write_table(_transfer_of(run, task, graded))
            runs.append(_summary_of(run, study.conditions[run.condition], record))
            inputs[run] = record["inputs"]
            census.append(_census_of(run, record))
    mixed = differing_inputs(inputs)
    for row in census:
        row["cell_problem"] = mixed.get((row["model"], row["task"]))
    for (model, task), problem in mixed.items():
        report(f"{model}/{task}: {problem}")
    with replacing(tables.runs) as temporary:
        pd.DataFrame(runs, columns=_columns()).to_parquet(temporary, index=False)
    write_csv(tables.records, pd.DataFrame(census, columns=list(CENSUS)))
    report(f"{len(runs)} of {len(study.runs())} records are in the tables")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Writes a table as CSV, with an apostrophe before every text that a spreadsheet would run as a formula."""
    with replacing(path) as temporary:
        frame.map(_inert).to_csv(temporary, index=False)


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


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
    nothing = [None] * record["rounds"]
    columns = {column: record.get(name, nothing) for name, column in {**ROUND_ARRAYS, **OWN_ARRAYS}.items()}
    return _table(run, {"round": range(record["rounds"]), **columns}, ROUNDS_SCHEMA)


def _heldout_of(run: Run, record: Mapping[str, Any]) -> pa.Table:
    evaluations = record["evaluations"]
    rounds = [seen["round"] for seen in evaluations for _ in seen["items"]]
    columns = {
        column: list(itertools.chain.from_iterable(seen[name] for seen in evaluations))
        for name, column in ITEM_ARRAYS.items()
    }
    return _table(run, {"round": rounds, **columns}, HELDOUT_SCHEMA)


def _transfer_of(run: Run, task: str, graded: Mapping[str, Any]) -> pa.Table:
    columns = {name.removesuffix("s"): graded[name] for name in TRANSFER}
    return _table(
        run, {"graded": _repeated(task, graded["items"]), "item": graded["items"], **columns}, TRANSFER_SCHEMA
    )


def _table(run: Run, columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    (values, *_) = columns.values()
    names = {name: _repeated(value, values) for name, value in run._asdict().items() if name != "seed"}
    seeds = pa.repeat(pa.scalar(run.seed, pa.int64()), len(values))
    return pa.Table.from_pydict({"seed": seeds, **names, **columns}, schema=schema)


def _repeated(name: str, values: Sequence[Any]) -> pa.DictionaryArray:
    """A name, as often as there are values."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int16()), len(values)), pa.array([name]))


def _census_of(run: Run, record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **run._asdict(),
        "state": record["status"],
        "rounds": record["rounds"],
        "problem": record["problem"],
        **{f"timed_{name}": record["timing"].get(name) for name in TIMING},
        **{name: record["provenance"].get(name) for name in PROVENANCE},
    }


def _summary_of(run: Run, condition: Condition, record: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {column: record[name] for name, column in ROUND_ARRAYS.items()}
    arrays["inflation"] = [
        None if grade is None else grade - score for grade, score in zip(arrays["grade"], arrays["score"], strict=True)
    ]
    arrays |= _published_curves(run, condition, record)
    row = {
        **run._asdict(),
        "status": record["status"],
        "rounds": record["rounds"],
        **{name: record[name] for name in SUMMARIES},
        "unreadable": record["unreadable_grades"],
        # An imported record holds none of these.
        "truncated": sum(value is True for value in arrays["truncated"]),
        "mean_logprob_gap": mean(arrays["logprob_gap"]),
        "largest_logprob_gap": max((gap for gap in arrays["logprob_gap"] if gap is not None), default=None),
        "seconds": record["timing"]["seconds"],
        "code": record["provenance"]["code"],
    }
    for curve in CURVES:
        row[f"start_{curve}"], row[f"end_{curve}"] = edges(arrays[curve])
    return row


def _published_curves(run: Run, condition: Condition, record: Mapping[str, Any]) -> dict[str, Any]:
    """Reward, accuracy and grade − accuracy of each round as the published study's code would have kept them."""
    if "imported" in record:
        histories = {name: record[f"original_{name}"] for name in PUBLISHED_HISTORIES}
    else:
        histories = published_histories(run.task, condition, record)
    inflations = [
        (grade or 0.0) - accuracy if condition.grades else None
        for grade, accuracy in zip(histories["grades"], histories["accuracies"], strict=True)
    ]
    return {
        "original_reward": histories["rewards"],
        "original_accuracy": histories["accuracies"],
        "original_inflation": inflations,
    }


def _columns() -> list[str]:
    edge_columns = [f"{edge}_{curve}" for curve in CURVES for edge in ("start", "end")]
    facts = ["unreadable", "truncated", "mean_logprob_gap", "largest_logprob_gap", "seconds", "code"]
    return [*KEYS, "status", "rounds", *SUMMARIES, *facts, *edge_columns]
