"""Rule `fetch_model`: downloads a model from the hub, or links one in a local folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.inputs.models import fetch_model
from wireheading.reporting import reporting
from wireheading.study.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
name = snakemake.wildcards.model
with reporting(snakemake.log[0]) as report:
    fetch_model(name, study.model_source(name), Path(snakemake.output[0]), report)
