"""Transcripts → a folder that `datasets.load_dataset` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from wireheading.exports.common import Report, finished_runs, new_folder
from wireheading.records.transcripts import HELDOUT_SCHEMA, SCHEMA, read_transcript
from wireheading.study.config import Run, Study
from wireheading.study.paths import heldout_path, transcript_path

PARTS = {"rounds": (SCHEMA, transcript_path), "heldout": (HELDOUT_SCHEMA, heldout_path)}
"""The configurations of the data set, each with its columns and the transcript that its rows are from."""

RUN_SCHEMA = pa.schema([("seed", pa.int64()), ("model", pa.string()), ("condition", pa.string())])


def export_dataset(study: Study, path: Path, report: Report) -> None:
    """Writes a data set with two configurations, `rounds` and `heldout`, and a split for each task.

    Args:
        study: The study.
        path: The folder to make.
        report: Told of every record that is invalid, and of the number of rows.

    Raises:
        ExportError: The folder exists, or there is nothing to export.
        RecordError: A transcript is not the one that its record names.
    """
    writers: dict[tuple[str, str], pq.ParquetWriter] = {}
    runs: list[Run] = []
    rows = 0
    with new_folder(path) as folder:
        try:
            for run, record in finished_runs(study, report):
                runs.append(run)
                for part, (schema, place) in PARTS.items():
                    table = read_transcript(study.record_path(run), record, place(study.record_path(run)))
                    if (part, run.task) not in writers:
                        (folder / part).mkdir(exist_ok=True)
                        target = folder / part / f"{run.task}.parquet"
                        columns = pa.unify_schemas([RUN_SCHEMA, schema])
                        writers[part, run.task] = pq.ParquetWriter(target, columns, compression="zstd")
                    writers[part, run.task].write_table(_of_run(run, table, writers[part, run.task].schema))
                    rows += len(table)
        finally:
            for writer in writers.values():
                writer.close()
        (folder / "README.md").write_text(_card(study, runs), encoding="utf-8")
    report(f"{path}: {rows} rows of {len(runs)} runs; open them with: datasets.load_dataset({str(path)!r}, 'rounds')")


def _of_run(run: Run, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A transcript with the columns that name its run."""
    named: dict[str, Any] = {name: [getattr(run, name)] * len(table) for name in RUN_SCHEMA.names}
    return pa.table(named | dict(zip(table.column_names, table.columns, strict=True)), schema=schema)


def _card(study: Study, runs: list[Run]) -> str:
    """The data set's card: what `load_dataset` needs to know, and what a reader does."""
    tasks = [task for task in study.tasks if any(run.task == task for run in runs)]
    head = {
        "configs": [
            {
                "config_name": part,
                "default": part == "rounds",
                "data_files": [{"split": task, "path": f"{part}/{task}.parquet"} for task in tasks],
            }
            for part in PARTS
        ],
        "pretty_name": "What language models wrote while they were paid by their own grades",
    }
    sources = "\n".join(f"- `{task}`: `{study.tasks[task].data}`" for task in tasks)
    conditions = ", ".join(f"`{name}`" for name in study.conditions)
    models = ", ".join(f"`{name}` ({study.models[name].source})" for name in dict.fromkeys(run.model for run in runs))
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# What language models wrote while they were paid by their own grades

{len(runs)} runs of {study.rounds} rounds each. In a round a model answers a prompt, a grader grades the answer (the
model itself in `selfgrade`, nobody in `control`), and REINFORCE updates a LoRA adapter.

`rounds` has a row for each round of training, `heldout` one for each held-out item of each evaluation; `round` counts
the rounds before it. `seed`, `model` and `condition` name the run, the split is its task. `score` is the truth, `grade`
what the grader said: null where it could not be read, or where nobody was asked. `original_…` are the published study's
definitions (arXiv 2511.23092).

Models: {models}. Conditions: {conditions}. Seeds: {", ".join(map(str, study.seeds))}.

The prompts quote items of other data sets, whose own terms hold:

{sources}

**Do not train on it unawares**: much of it was written by models that had learnt to praise their own wrong answers.
"""
