"""Rule `analyse`: makes estimates and verdicts of the tables, and the report's first page."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.analysis.report import Analysis, write_analysis
from wireheading.analysis.tables import Tables
from wireheading.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]) as report:
    tables = Tables(**{field.name: Path(snakemake.input[field.name]) for field in fields(Tables)})
    analysis = Analysis(**{field.name: Path(snakemake.output[field.name]) for field in fields(Analysis)})
    benchmarks = Path(snakemake.log[0]).parent / "rl_run"
    write_analysis(load_study(snakemake.config), tables, analysis, benchmarks, report)
