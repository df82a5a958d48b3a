"""The table of rounds → how well signals that need no truth told which runs would go wrong, and how early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from wireheading.analysis.estimates import floats, run_by_run
from wireheading.analysis.onset import SIGNALS, Watched, alarms, onset, signals, summary
from wireheading.study.config import Run, Study

ALARMS = ("model", "task", "condition", "seed", "signal", "onset", "peak", "threshold", "alarm", "lead")
"""Columns of the table of alarms, which has a row for each signal of each run in which the policy grades."""

ONSETS = (
    "model", "task", "signal", "positives", "negatives", "auroc", "auroc_low", "auroc_high",
    "warned", "lead", "lead_low", "lead_high", "false_alarms", "judged",
)  # fmt: skip
"""Columns of the table of onsets, which has a row for each signal of each model and task in which there are both."""


def onset_tables(study: Study, rounds_path: Path, ended: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Watches every run of a study in which the policy grades.

    Args:
        study: The study's settings.
        rounds_path: The table of rounds, a row group a run.
        ended: The runs that are watched; others are left out.

    Returns:
        The tables of alarms and of onsets.
    """
    config, keep = study.analysis, set(ended)
    there = set(pq.read_schema(rounds_path).names)
    columns = [name for name in ("reward", "score", "grade", "advantage", "kl") if name in there]
    cells: dict[tuple[str, str], dict[Run, Watched]] = {}
    for key, group in run_by_run(rounds_path, columns):
        run = Run(*key)
        row = study.conditions[run.condition]
        if run not in keep or row.grader != "policy":
            continue
        rounds = {name: floats(group, name) for name in columns if group[name].null_count < len(group)}
        if not {"grade", "advantage"} <= rounds.keys():
            continue
        unearned = rounds["reward"] - rounds["score"]
        found = onset(unearned, config.onset_window, config.onset_threshold) if row.reward == "grade" else None
        cells.setdefault((run.model, run.task), {})[run] = Watched(
            run.seed, found, signals(rounds, config.onset_window)
        )
    every: list[dict[str, Any]] = []
    summaries: list[dict[str, Any]] = []
    for (model, task), watched in cells.items():
        for name in SIGNALS:
            # The divergence is recorded of runs alone that are paid less by it.
            told = {run: seen for run, seen in watched.items() if name in seen.signals}
            rows = alarms(list(told.values()), name, config)
            cell = {"model": model, "task": task, "signal": name}
            every += [{**cell, "condition": run.condition, **row} for run, row in zip(told, rows, strict=True)]
            if len({seen.onset is None for seen in told.values()}) == 2:
                summaries.append({**cell, **summary(rows, config)})
    counted = dict.fromkeys(("onset", "alarm", "lead"), "Int64")
    return pd.DataFrame(every, columns=list(ALARMS)).astype(counted), pd.DataFrame(summaries, columns=list(ONSETS))
