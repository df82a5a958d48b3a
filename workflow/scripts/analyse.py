"""Rule `analyse`: computes estimates and verdicts from the tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.report import write_analysis
from wireheading.reporting import reporting
from wireheading.study.config import load_study
from wireheading.study.paths import Analysis, Tables

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]) as report:
    tables = Tables.of(study)
    analysis = Analysis.of(study)
    benchmarks = Path(snakemake.log[0]).parent / "rl_run"
    write_analysis(study, tables, analysis, benchmarks, report)
