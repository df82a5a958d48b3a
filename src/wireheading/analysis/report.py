"""From the tables of records to the tables that a report shows: estimates, verdicts and what stands beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from wireheading.analysis.alarms import onset_tables
from wireheading.analysis.cells import cells
from wireheading.analysis.costs import costs
from wireheading.analysis.estimates import calibration, definitions, write_estimates
from wireheading.analysis.sensitivity import pooled
from wireheading.analysis.signature import signature
from wireheading.analysis.tables import write_csv
from wireheading.analysis.verdict import judge, seeds_table
from wireheading.files import replacing
from wireheading.study.config import Run, Study
from wireheading.study.paths import Analysis, Tables


def write_analysis(
    study: Study, tables: Tables, analysis: Analysis, benchmarks: Path, report: Callable[[str], None]
) -> None:
    """Writes the results of the analysis.

    Args:
        study: The study's settings.
        tables: The tables of records.
        analysis: Where the results go.
        benchmarks: Folder of the benchmark files of the runs' jobs.
        report: Is told the verdicts.
    """
    write_estimates(study, tables.rounds, tables.heldout, analysis.estimates, analysis.reliability, report)
    estimates, records = pd.read_parquet(analysis.estimates), pd.read_csv(tables.records)
    judged = cells(study, tables.heldout, estimates, records)
    verdicts, models = judge(judged, study.analysis), pooled(judged, study.analysis)
    runs = pd.read_parquet(tables.runs)
    both, signatures = definitions(runs), signature(study, runs)
    calibrated = calibration(estimates)
    ended = [Run(*names) for names in runs.loc[runs["status"] != "diverged", list(Run._fields)].to_numpy()]
    alarms, onsets = onset_tables(study, tables.rounds, ended)
    spent = costs(study, records, benchmarks)
    for path, table in (
        (analysis.verdicts, verdicts),
        (analysis.contrasts, seeds_table(judged, study.analysis)),
        (analysis.models, models),
        (analysis.signature, signatures),
        (analysis.calibration, calibrated),
        (analysis.alarms, alarms),
        (analysis.onsets, onsets),
        (analysis.definitions, both),
        (analysis.costs, spent),
    ):
        write_csv(path, table)
    with replacing(analysis.thresholds) as temporary:
        temporary.write_text(study.analysis.text(), encoding="utf-8")
    for row in verdicts.to_dict("records"):
        report(f"{row['model']}, {row['task']}: {row['verdict']} ({row['why']})")
