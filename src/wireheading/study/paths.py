"""Where records, tables and the results of the analysis lie. The workflow asks while it is parsed: imports are few."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wireheading.study.config import Study

RECORD = "{seed}/{model}/{task}/{condition}.json"
"""The path of a record in the results folder."""


def find_records(results: Path) -> list[Path]:
    """Everything in a results folder that lies where records do, shorter imported histories among it."""
    return sorted(results.glob(re.sub(r"\{\w+\}", "*", RECORD)))


def names_in(record: Path) -> list[str]:
    """Seed, model, task and condition that a record's path names."""
    return [*record.parts[-4:-1], record.name.partition(".")[0]]


def checkpoint_folder(record: Path) -> Path:
    """Where the checkpoints of a record's run lie."""
    return record.with_suffix(".checkpoint")


def transcript_path(record: Path) -> Path:
    """Where the transcript of a record's run lies."""
    return record.with_suffix(".parquet")


def heldout_path(record: Path) -> Path:
    """Where the transcript of a run's held-out evaluations lies."""
    return record.with_suffix(".heldout.parquet")


def adapter_folder(record: Path) -> Path:
    """Where the adapter of a record's run lies, if it was kept."""
    return record.with_suffix(".adapter")


def imported_path(record: Path) -> Path:
    """Where an imported history lies that is shorter than its run, so that the run has no record yet."""
    return record.with_suffix(".imported.json")


def jobs_folder(results: Path) -> Path:
    """Where the jobs that do runs of a results folder tell of themselves."""
    return results / ".progress"


@dataclass(frozen=True)
class Tables:
    """Where the tables of records lie.

    Attributes:
        rounds: Parquet file with a row for each round of each run.
        heldout: Parquet file with a row for each held-out item of each evaluation of each run.
        transfer: Parquet file with a row for each held-out item of another task that a run graded the answers of.
        runs: Parquet file with a row for each run.
        records: CSV file with a row for each run of the study, whether it has a record or not.
    """

    rounds: Path
    heldout: Path
    transfer: Path
    runs: Path
    records: Path

    @staticmethod
    def of(study: Study) -> Tables:
        """Those of a study; of a part of one, they lie with its reports."""
        results = _tables_folder(study)
        return Tables(
            results / "rounds.parquet",
            results / "heldout.parquet",
            results / "transfer.parquet",
            results / "runs.parquet",
            results / "records.csv",
        )


@dataclass(frozen=True)
class Analysis:
    """Where the results of the analysis lie.

    Attributes:
        estimates: Parquet file with a row for each evaluation of each run.
        reliability: Parquet file with a row for each bin of grades of each run, before and after training.
        verdicts: CSV file with a row for each model and task.
        contrasts: CSV file with what each seed shows.
        models: CSV file with each model's interquartile mean of leniency less that in control.
        signature: CSV file with the published signature of each run.
        calibration: CSV file with a row for each model, task and condition.
        alarms: CSV file with what each signal did in each run in which the policy grades.
        onsets: CSV file with how well each signal told which rewards would become unearned.
        definitions: CSV file with the published study's figures by both definitions.
        costs: CSV file with a row for each job.
        thresholds: JSON file with the thresholds that were used.
    """

    estimates: Path
    reliability: Path
    verdicts: Path
    contrasts: Path
    models: Path
    signature: Path
    calibration: Path
    alarms: Path
    onsets: Path
    definitions: Path
    costs: Path
    thresholds: Path

    @staticmethod
    def of(study: Study) -> Analysis:
        """Those of a study."""
        reports = Path(study.reports)
        return Analysis(
            reports / "estimates.parquet",
            reports / "reliability.parquet",
            reports / "verdicts.csv",
            reports / "contrasts.csv",
            reports / "models.csv",
            reports / "signature.csv",
            reports / "calibration.csv",
            reports / "alarms.csv",
            reports / "onsets.csv",
            reports / "definitions.csv",
            reports / "costs.csv",
            reports / "analysis.json",
        )


@dataclass(frozen=True)
class Oversight:
    """Where the results on oversight lie, of a study that asks about it.

    Attributes:
        effects: CSV file with what each condition did, by model and task.
        seeds: CSV file with the same of each seed.
        transfer: CSV file with leniency by task trained on and task graded; empty unless the study asks for it.
        page: The page that tells what was found.
    """

    effects: Path
    seeds: Path
    transfer: Path
    page: Path

    @staticmethod
    def of(study: Study) -> Oversight:
        """Those of a study."""
        reports = Path(study.reports)
        return Oversight(
            reports / "oversight.csv",
            reports / "oversight_seeds.csv",
            reports / "transfer.csv",
            reports / "oversight.html",
        )


def _tables_folder(study: Study) -> Path:
    """Where tables lie: a part of a study never replaces those of the whole."""
    return Path(study.reports if study.only else study.results)
