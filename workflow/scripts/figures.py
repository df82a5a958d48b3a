"""Rule `figures`: draws the figures of the tables."""

from pathlib import Path

from snakemake.script import snakemake

from wireheading.analysis.figures import write_figures

write_figures(Path(snakemake.input.rounds), Path(snakemake.input.runs), Path(snakemake.output[0]).parent)
