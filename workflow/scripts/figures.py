"""Rule `figures`: draws the figures of the tables."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.figures import write_figures

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

write_figures(Path(snakemake.input.rounds), Path(snakemake.input.runs), Path(snakemake.output[0]).parent)
