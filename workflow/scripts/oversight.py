"""Rule `oversight`: writes the tables, figures and page on oversight."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.figures.oversight import write_oversight_figures
from wireheading.analysis.oversight import write_oversight_tables
from wireheading.analysis.pages.oversight import write_oversight_page
from wireheading.reporting import reporting
from wireheading.study.config import load_study
from wireheading.study.paths import Analysis, Oversight, Tables

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]):
    tables, analysis, oversight = Tables.of(study), Analysis.of(study), Oversight.of(study)
    figures = Path(study.reports, "figures")
    write_oversight_tables(study, tables, oversight)
    write_oversight_figures(study, tables, oversight, analysis.estimates, figures)
    write_oversight_page(study, oversight, analysis.onsets, figures)
