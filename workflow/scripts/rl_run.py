"""Rule `rl_run`: does the runs of one job."""

import os
from typing import TYPE_CHECKING

from wireheading.engine.job import run_job
from wireheading.engine.leases import own_device
from wireheading.engine.stopping import Stopped
from wireheading.reporting import reporting
from wireheading.scheduling import job_key, job_runs
from wireheading.study.config import load_study

if TYPE_CHECKING:
    from snakemake.script import Snakemake

    snakemake: Snakemake

study = load_study(snakemake.config)
axes = job_runs(study, study.runs())[job_key(study, snakemake.wildcards)]
wanted = [run for run in axes if str(run) in set(snakemake.params.runs)]
model = study.model_folder(axes[0].model)
data = {task: study.items_folder(task) for task in study.tasks}
with reporting(snakemake.log[0]) as report, own_device(study, axes[0].model, report):
    try:
        run_job(study, axes, wanted, model, data, report, report.notice)
    except Stopped as stopped:
        report(str(stopped))
        # A failure, so that Snakemake asks for the runs again; sysexits.h's "temporary failure; try again".
        raise SystemExit(os.EX_TEMPFAIL) from None
