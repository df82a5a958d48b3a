"""Rule `aggregate`: makes tables of all records, and then removes the checkpoints of those that are believed."""

from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.analysis.tables import Tables, write_tables
from wireheading.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]) as report:
    tables = Tables(**{name: Path(path) for name, path in snakemake.output.items()})
    write_tables(load_study(snakemake.config), tables, report)
