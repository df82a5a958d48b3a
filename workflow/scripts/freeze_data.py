"""Rule `freeze_data`: chooses the items of a task and freezes them to files."""

from pathlib import Path
from typing import TYPE_CHECKING

from wireheading.inputs.items import find_commit, freeze_items, write_items
from wireheading.inputs.models import write_source
from wireheading.reporting import reporting
from wireheading.study.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
task = snakemake.wildcards.task
with reporting(snakemake.log[0]) as report:
    commit = find_commit(task, study.tasks[task])
    train, heldout = freeze_items(task, study.tasks[task], study.data_seed, commit)
    write_items(Path(snakemake.output.train), train)
    write_items(Path(snakemake.output.heldout), heldout)
    folder = Path(snakemake.output.source).parent
    write_source(folder, study.items_source(task), commit, ("train.jsonl", "heldout.jsonl"))
    report(f"{task}: {len(train)} items to train on, {len(heldout)} held out")
