"""Rule `fetch_model`: fetches a model from the hub or links that of a local folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.config import load_study
from wireheading.fetching import fetch_model

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
name = snakemake.wildcards.model
with reporting(snakemake.log[0]) as report:
    fetch_model(name, study.model_source(name), Path(snakemake.output[0]), report)
