# What the other rule files share.
#
# Needs the merged config; defines STUDY (the checked config), RUNS (the requested runs), STATES (of their records), the
# paths of what is made from them, and the tokens of what is still to be done.

import math
import os
import re
import sys
from pathlib import Path

from snakemake.utils import update_config

try:
    from wireheading import console, scheduling
except ModuleNotFoundError as error:
    if error.name != "wireheading":
        raise
    sys.exit(
        "wireheading: the package is not installed where Snakemake runs; pip install git+<address of the "
        "workflow's repository>, or pip install -e . in a clone of it"
    )
from wireheading.analysis.currency import (
    analysis_is_current,
    replaced_report,
    tables_are_current,
)
from wireheading.analysis.figures import FIGURES
from wireheading.errors import ConfigError
from wireheading.files import WriteError
from wireheading.jobs import job_name
from wireheading.planning import closing_text, plan_text
from wireheading.study import conditions
from wireheading.study.config import AXES, Run, load_study
from wireheading.study.oversight import oversight_figures
from wireheading.study.paths import RECORD, Analysis, Oversight, Tables
from wireheading.study.reading import read_config

try:
    whole_config = {}
    for path in workflow.overwrite_configfiles or workflow.configfiles:
        update_config(whole_config, read_config(Path(path)))
    scheduling.declare_part(config, whole_config)
    STUDY = load_study(config)
    scheduling.check_folders(STUDY)
    RUNS = scheduling.requested_runs(STUDY, sys.argv[1:])
except ConfigError as error:
    sys.exit(str(error))

# Conda environments provide the libraries; the package itself is in src, beside the workflow.
os.environ.update(
    PYTHONPATH=os.pathsep.join(
        filter(
            None,
            [os.path.join(workflow.basedir, "..", "src"), os.environ.get("PYTHONPATH")],
        )
    ),
)

if workflow.is_main_process:
    scheduling.begin_invocation(STUDY)
JOB = scheduling.job_name(STUDY)
JOB_MESSAGE = job_name(STUDY, Run(*(f"{{wildcards.{axis}}}" for axis in AXES)))
STATES = scheduling.RecordStates(STUDY)
if STUDY.partial:
    RUNS = [run for run in RUNS if STATES[run] != "missing"]
JOBS = scheduling.job_runs(STUDY, RUNS)
TABLES_TOKEN = scheduling.token(STUDY, "aggregate")
TABLES = {name: str(path) for name, path in vars(Tables.of(STUDY)).items()}
ANALYSIS = {name: str(path) for name, path in vars(Analysis.of(STUDY)).items()}
OVERSIGHT = {name: str(path) for name, path in vars(Oversight.of(STUDY)).items()}
OVERSIGHT_FIGURES = oversight_figures(STUDY)
CATEGORIES = list(dict.fromkeys(category for category, _ in FIGURES.values()))


if workflow.is_main_process:
    try:
        states = STATES.of(RUNS)
        held = [] if STUDY.partial else scheduling.held_runs(STUDY, states)
        dry_run = scheduling.is_dry_run(sys.argv[1:])
        if held and not dry_run:
            sys.exit("\n".join(held))
        scheduling.mark_for_redoing(
            STUDY, STATES.of(STUDY.runs()) if STUDY.partial else states
        )
        if not dry_run:
            scheduling.remove_finished_checkpoints(STUDY, states)
            if not STUDY.partial:
                scheduling.keep_thresholds(STUDY, whole_config)
    except WriteError as error:
        sys.exit(str(error))
    plan = plan_text(STUDY, states)
    if workflow.output_settings.verbose or not console.take_over(logger, plan, dry_run):
        logger.info(plan)
    for line in (
        *held,
        *scheduling.mixed_cells(STUDY, states),
        *replaced_report(STUDY),
    ):
        logger.warning(line)
elif workflow.subprocess_exec:
    console.take_over(logger, "", dry_run=False)


def any_of(names):
    """A pattern that matches these names only, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def job_gpus(wildcards):
    """GPUs of a job: the small model that the workflow trains itself does without."""
    return int(wildcards.model not in STUDY.trained_models)


def job_vram(wildcards):
    """Device memory of a job, in whole GB; 0 if the config does not state it."""
    return math.ceil(STUDY.models[wildcards.model].vram_gb or 0)


def runs_of(wildcards):
    """The runs of a job."""
    return JOBS[scheduling.job_key(STUDY, wildcards)]


def token_of_run(wildcards):
    """The token of the job that makes a record; none if the record is valid."""
    run = Run(int(wildcards.seed), wildcards.model, wildcards.task, wildcards.condition)
    if STATES[run] == "valid":
        return []
    redo = scheduling.redo_marker(STUDY) if STATES[run] != "missing" else []
    return scheduling.run_tokens(STUDY, {run: STATES[run]}) + redo


def run_tokens(wildcards):
    """The tokens of the jobs that are still to be done."""
    return [] if STUDY.partial else scheduling.run_tokens(STUDY, STATES.of(RUNS))


def tables_token(wildcards):
    """The token of tables that are to be made, and the marker of outdated ones."""
    states = STATES.of(STUDY.runs() if STUDY.partial else RUNS)
    current = tables_are_current(STUDY, states)
    return [] if current else [TABLES_TOKEN, *scheduling.redo_marker(STUDY)]


def redo_analysis(wildcards):
    """The marker of an outdated analysis."""
    current = analysis_is_current(STUDY)
    return [] if current else scheduling.redo_marker(STUDY)


def models_to_run(wildcards):
    """The model of a job, if any of its runs is still to be done."""
    runs = [run for run in runs_of(wildcards) if STATES[run] != "valid"]
    return sorted({str(STUDY.model_folder(run.model)) for run in runs})


def data_to_run(wildcards):
    """The items of each task that still has runs to be done in a job, and of those whose answers they grade."""
    tasks = {run.task for run in runs_of(wildcards) if STATES[run] != "valid"}
    tasks |= {other for task in tasks for other in STUDY.other_tasks(task)}
    return [
        str(STUDY.items_folder(task) / f"{part}.jsonl")
        for task in sorted(tasks)
        for part in ("train", "heldout")
    ]


def job_memory(wildcards, attempt):
    """Host memory of a job in MB, growing with each attempt."""
    return attempt * STUDY.models[wildcards.model].memory_mb


def job_minutes(wildcards, attempt):
    """Time limit of a job in minutes, growing with each attempt."""
    return attempt * STUDY.models[wildcards.model].minutes


wildcard_constraints:
    seed=r"\d+",
    model="|".join(map(re.escape, STUDY.models)),
    task="|".join(STUDY.tasks),
    condition=conditions.NAME,
    digest=r"[0-9a-f]{8}",
