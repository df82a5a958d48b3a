"""Rule `figures`: draws the figures of the tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.analysis.figures import write_figures

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]):
    write_figures(Path(snakemake.input.rounds), Path(snakemake.input.runs), Path(snakemake.output[0]).parent)
