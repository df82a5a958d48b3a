"""Rule `figures`: draws the figures of the tables and of the analysis."""

from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.analysis.figures import write_figures
from wireheading.analysis.heldout_figures import write_heldout_figures
from wireheading.analysis.paths import Analysis, Tables
from wireheading.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]):
    folder = Path(snakemake.output[0]).parent
    tables = Tables.of(study)
    analysis = Analysis.of(study)
    write_figures(tables.rounds, tables.runs, folder)
    write_heldout_figures(study, tables, analysis, folder)
