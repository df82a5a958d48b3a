"""Rule `transcripts`: writes the page for browsing the transcripts of all runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.pages.transcripts import write_transcript_page
from wireheading.reporting import reporting
from wireheading.study.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]) as report:
    write_transcript_page(load_study(snakemake.config), Path(snakemake.output[0]), report)
