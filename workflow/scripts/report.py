"""Rule `report`: writes the report, with the figures in it."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.analysis.pages.report import write_report
from wireheading.reporting import reporting
from wireheading.study.config import load_study
from wireheading.study.paths import Analysis, Tables

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]) as report:
    tables, analysis = Tables.of(study), Analysis.of(study)
    captions = {path.stem: path.read_text(encoding="utf-8") for path in map(Path, snakemake.params.captions)}
    write_report(study, tables, analysis, captions, Path(snakemake.output[0]), report)
