"""Rule `figures`: draws the figures from the tables and the analysis."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.figures.heldout import write_heldout_figures
from wireheading.analysis.figures.training import write_figures
from wireheading.reporting import reporting
from wireheading.study.config import load_study
from wireheading.study.paths import Analysis, Tables

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]):
    folder = Path(snakemake.output[0]).parent
    tables = Tables.of(study)
    analysis = Analysis.of(study)
    write_figures(study, tables, folder)
    write_heldout_figures(study, tables, analysis, folder)
