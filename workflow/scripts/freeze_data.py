"""Rule `freeze_data`: chooses the items of a task and freezes them to files."""

from pathlib import Path
from typing import TYPE_CHECKING

from reporting import reporting

from wireheading.config import load_study
from wireheading.data import freeze_items, write_items

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
task = snakemake.wildcards.task
with reporting(snakemake.log[0]) as report:
    train, heldout = freeze_items(task, study.tasks[task], study.data_seed)
    write_items(Path(snakemake.output.train), train)
    write_items(Path(snakemake.output.heldout), heldout)
    report(f"{task}: {len(train)} items to train on, {len(heldout)} held out")
