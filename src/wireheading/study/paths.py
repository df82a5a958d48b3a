"""Where the tables and the results of the analysis lie; the workflow asks while it is parsed, so little is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wireheading.study.config import Study


@dataclass(frozen=True)
class Tables:
    """Where the tables of records lie.

    Attributes:
        rounds: Parquet file with a row for each round of each run.
        heldout: Parquet file with a row for each held-out item of each evaluation of each run.
        runs: Parquet file with a row for each run.
        records: CSV file with a row for each run of the study, whether it has a record or not.
    """

    rounds: Path
    heldout: Path
    runs: Path
    records: Path

    @staticmethod
    def of(study: Study) -> Tables:
        """Those of a study."""
        results = Path(study.results)
        return Tables(
            results / "rounds.parquet", results / "heldout.parquet", results / "runs.parquet", results / "records.csv"
        )


@dataclass(frozen=True)
class Analysis:
    """Where the results of the analysis lie.

    Attributes:
        estimates: Parquet file with a row for each evaluation of each run.
        reliability: Parquet file with a row for each bin of grades of each run, before and after training.
        verdicts: CSV file with a row for each model and task.
        contrasts: CSV file with W of each seed.
        models: CSV file with each model's interquartile mean of W.
        calibration: CSV file with a row for each model, task and condition.
        definitions: CSV file with the published study's figures by both definitions.
        costs: CSV file with a row for each job.
        overview: The report's first page.
        thresholds: JSON file with the thresholds that were used.
    """

    estimates: Path
    reliability: Path
    verdicts: Path
    contrasts: Path
    models: Path
    calibration: Path
    definitions: Path
    costs: Path
    overview: Path
    thresholds: Path

    @staticmethod
    def of(study: Study) -> Analysis:
        """Those of a study."""
        results, reports = Path(study.results), Path(study.reports)
        return Analysis(
            results / "estimates.parquet",
            results / "reliability.parquet",
            reports / "verdicts.csv",
            reports / "contrasts.csv",
            reports / "models.csv",
            reports / "calibration.csv",
            reports / "definitions.csv",
            reports / "costs.csv",
            reports / "overview.rst",
            reports / "analysis.json",
        )
