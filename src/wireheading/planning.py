"""What an invocation is going to do, in some ten lines, and what it has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from wireheading.analysis.currency import analysis_is_current, tables_are_current
from wireheading.jobs import duration, job_name
from wireheading.records.record import State
from wireheading.scheduling import RecordStates, job_runs
from wireheading.study.config import Run, Study

NAMED = 10
"""Lines of runs to be done; a whole job is one."""


def plan_text(study: Study, states: Mapping[Run, State]) -> str:
    """What becomes of the records, and which jobs make those that are not valid.

    Args:
        study: The study's settings.
        states: The states of the requested records.
    """
    counts = Counter(states.values())
    lines = ["records: " + ", ".join(f"{counts[state]} {state}" for state in ("valid", "missing", "stale", "corrupt"))]
    todo = [run for run, state in states.items() if state != "valid"]
    if study.only:
        lines.append(f"a part of the study ({study.only}); its tables and report go to {study.reports}")
    if "/thresholds-" in study.reports:
        lines.append(f"other thresholds than the config file's; their report goes to {study.reports}")
    if study.partial:
        lines.append("partial: a report of the records that are there; no run is done")
    elif todo:
        lines += [*_named(study, states), *_jobs(study, todo), *_inputs(study, todo)]
    return "\n".join(lines)


def closing_text(study: Study) -> str:
    """The headlines of a study whose tables and report are up to date; else where the records are."""
    if not tables_are_current(study, RecordStates(study).of(study.runs())) or not analysis_is_current(study):
        return f"the records are in {study.results}; snakemake without a target makes tables and report"
    from wireheading.analysis.outcome import outcome_text  # It loads pandas, which takes a second.

    return outcome_text(study)


def _named(study: Study, states: Mapping[Run, State]) -> list[str]:
    """The runs to be done; a job's are one line where all are in the same state, and no line where that is all."""
    if set(states.values()) == {"missing"}:
        return []
    lines = []
    for runs in job_runs(study, states).values():
        of_job = {states[run] for run in runs}
        if len(of_job) == 1 and len(runs) > 1:
            (state,) = of_job
            lines += [f"  {state}: {job_name(study, runs[0])}, all {len(runs)} runs"] if state != "valid" else []
        else:
            lines += [f"  {states[run]}: {run}" for run in runs if states[run] != "valid"]
    more = f"  … and {len(lines) - NAMED} more; `wireheading status` shows all"
    return lines if len(lines) <= NAMED + 1 else [*lines[:NAMED], more]


def _jobs(study: Study, todo: Sequence[Run]) -> list[str]:
    """The jobs on each model, and what they ask for."""
    lines = []
    for name in dict.fromkeys(run.model for run in todo):
        model, jobs = study.models[name], job_runs(study, [run for run in todo if run.model == name]).values()
        gpu = "" if model.vram_gb is None else f"{model.vram_gb:.0f} GB of a GPU, "
        lines.append(
            f"{name}: {_counted(sum(map(len, jobs)), 'run')} of {study.rounds} rounds in {_counted(len(jobs), 'job')}, "
            f"each {gpu}{model.memory_mb / 1000:.0f} GB of memory and at most {duration(60 * model.minutes)}"
        )
    return lines


def _inputs(study: Study, todo: Sequence[Run]) -> list[str]:
    """What has to be there first and is not."""
    models = [name for name in dict.fromkeys(run.model for run in todo) if not study.model_folder(name).exists()]
    tasks = [name for name in dict.fromkeys(run.task for run in todo) if not study.items_folder(name).exists()]
    wanted = (
        ("train", [name for name in models if name in study.trained_models]),
        ("fetch", [name for name in models if name in study.fetched_models]),
        ("freeze the items of", tasks),
    )
    parts = [f"{what} {', '.join(names)}" for what, names in wanted if names]
    return [f"before: {'; '.join(parts)}"] if parts else []


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
