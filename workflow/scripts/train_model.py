"""Rule `train_model`: trains the embedded model."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.pretraining.training import train_model
from wireheading.reporting import reporting
from wireheading.study.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

with reporting(snakemake.log[0]) as report:
    train_model(load_study(snakemake.config), Path(snakemake.output[0]), report.notice)
