"""Rule `train_model`: trains the embedded model."""

from pathlib import Path

from reporting import reporting
from snakemake.script import snakemake

from wireheading.config import load_study
from wireheading.tiny.train import train_model

with reporting(snakemake.log[0]) as report:
    train_model(load_study(snakemake.config), Path(snakemake.output[0]), report)
