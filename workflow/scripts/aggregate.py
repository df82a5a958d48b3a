"""Rule `aggregate`: writes the tables of all records."""

from typing import TYPE_CHECKING

from wireheading.analysis.tables import write_tables
from wireheading.reporting import reporting
from wireheading.study.config import load_study
from wireheading.study.paths import Tables

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
with reporting(snakemake.log[0]) as report:
    tables = Tables.of(study)
    write_tables(study, tables, report)
