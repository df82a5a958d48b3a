"""Rule `figures`: draws the figures of the tables and of the analysis."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.analysis.figures import write_figures
from wireheading.analysis.heldout_figures import write_heldout_figures
from wireheading.analysis.report import Analysis
from wireheading.analysis.tables import Tables
from wireheading.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]):
    folder = Path(snakemake.output[0]).parent
    tables = Tables(**{field.name: Path(snakemake.input[field.name]) for field in fields(Tables)})
    analysis = Analysis(**{field.name: Path(snakemake.input[field.name]) for field in fields(Analysis)})
    write_figures(tables.rounds, tables.runs, folder)
    write_heldout_figures(load_study(snakemake.config), tables, analysis, folder)
