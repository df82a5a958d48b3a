"""A job: holds its runs, loads their model and items, and advances them in lockstep until their records are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from wireheading.engine.evaluation import evaluate, fixed_answers
from wireheading.engine.experiment import Row, finite
from wireheading.engine.folders import holding
from wireheading.engine.keeping import Keeper
from wireheading.engine.layout import evaluation_batch, groups_of
from wireheading.engine.lockstep import Lockstep
from wireheading.engine.memory import GB, fitted
from wireheading.engine.progress import Progress, telling
from wireheading.engine.prompts import check_limits
from wireheading.engine.setup import policy_of
from wireheading.engine.stopping import Stop, listening
from wireheading.engine.transfer import Answered, answered
from wireheading.errors import InputError
from wireheading.inputs.items import Items
from wireheading.inputs.models import file_states, model_digests
from wireheading.policy.device import prepare_device
from wireheading.policy.model import load_model
from wireheading.policy.policy import Policy
from wireheading.records.record import inspect_record
from wireheading.study.config import Run, Study
from wireheading.study.paths import checkpoint_folder

Report = Callable[[str], None]


def run_job(
    study: Study,
    axes: Sequence[Run],
    wanted: Sequence[Run],
    model_folder: Path,
    data_folders: Mapping[str, Path],
    report: Report,
    notice: Report,
) -> None:
    """Does the runs of a job that have no valid record yet, and writes their records.

    Args:
        study: The study's settings.
        axes: All runs that share the job by the config, in its order: they number the slots.
        wanted: Those whose records are asked for.
        model_folder: The model of all of them.
        data_folders: The folder of each task's items.
        report: Writes a line of the log.
        notice: Writes a line that whoever sits at the terminal should see too.

    Raises:
        Stopped: A signal asked the job to end; every finished round is in a checkpoint.
        InputError: Another process is doing a run, or something cannot be read or written.
    """
    with listening() as stop, ExitStack() as locks:
        for run in _without_record(study, wanted):
            locks.enter_context(holding(checkpoint_folder(study.record_path(run)), notice))
        # Whoever held a run before may have finished it.
        missing = _without_record(study, wanted)
        report(f"{len(wanted) - len(missing)} of {len(wanted)} runs have their record; {len(missing)} to do")
        if missing:
            progress = locks.enter_context(telling(study, missing, report, notice))
            _run(study, axes, missing, model_folder, data_folders, progress, stop)


def _without_record(study: Study, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if inspect_record(study.record_path(run), study.digest(run)) != "valid"]


def _run(
    study: Study,
    axes: Sequence[Run],
    missing: Sequence[Run],
    model_folder: Path,
    data_folders: Mapping[str, Path],
    progress: Progress,
    stop: Stop,
) -> None:
    """Loads what the runs need and advances them to their end."""
    progress.doing("loading the model")
    device = prepare_device(study.engine.threads)
    study, needed = fitted(study, axes, model_folder, device)
    if needed is not None:
        progress.report(
            f"memory expected: {needed}; held-out items of each run evaluated together: {evaluation_batch(study)}"
        )
    policy, weights = _load(study, axes, model_folder, device)
    tasks = dict.fromkeys(run.task for run in missing)
    slots = {task: part.slots for group in groups_of(study, axes) for task, part in group.parts.items()}
    others = dict.fromkeys(other for task in tasks for other in study.other_tasks(task))
    items = {task: Items.read(data_folders[task], task) for task in tasks | others}
    for task in items:
        check_limits(study, task, policy.chat, [*items[task].train, *items[task].heldout])
    answers = {task: fixed_answers(study, task, policy.chat, items[task].heldout) for task in tasks}
    inputs = {task: weights | _digests(study, task, items) for task in tasks}
    keeper = Keeper(study, policy, inputs, progress.report, progress.notice)
    states = [keeper.start(run, axes.index(run), items[run.task]) for run in missing]
    progress.doing("held-out evaluation of the base model")
    base: dict[str, list[Row]] = {}
    for task in tasks:
        heldout = items[task].heldout
        # As many conversations at once as there are when all slots are evaluated.
        most = len(slots[task]) * evaluation_batch(study)
        before_batch = progress.evaluation(f"the base model in {task}", len(heldout), most, stop.check)
        base[task] = evaluate(study, task, policy, range(1), heldout, answers[task], most, before_batch, base=True)[0]
        _check_finite(base[task], study, task, axes[0].model, model_folder)
    graded: dict[str, Answered] = {}
    for task in others:
        heldout, most = items[task].heldout, evaluation_batch(study)
        before_batch = progress.evaluation(f"answers in {task} by the base model", len(heldout), most, stop.check)
        graded[task] = answered(study, task, policy, heldout, most, before_batch)
        _check_finite(graded[task].base, study, task, axes[0].model, model_folder)
    Lockstep(study, axes, policy, keeper, base, graded, progress, stop).advance(states)
    if needed is not None:
        peak = torch.cuda.max_memory_reserved() / GB
        progress.report(f"memory at the peak: {peak:.1f} GB, of {needed.total / GB:.1f} expected")


def _check_finite(rows: Sequence[Row], study: Study, task: str, model: str, folder: Path) -> None:
    """Checks what the base model said of the held-out items of a task.

    Raises:
        InputError: Some of its logits were not finite.
    """
    if not finite(rows):
        raise InputError(
            f"{folder}: its logits on the held-out items of {task} are not finite in "
            f"{study.models[model].precision} at temperature {study.temperature}; give whole weights, another "
            "precision or a higher temperature"
        )


def _digests(study: Study, task: str, items: Mapping[str, Items]) -> dict[str, str]:
    """Digests of all items that a run of a task reads."""
    others = {
        f"{other}.{name}": sha
        for other in study.other_tasks(task)
        for name, sha in items[other].digests.items()
        if name != "train.jsonl"
    }
    return items[task].digests | others


def _load(study: Study, axes: Sequence[Run], folder: Path, device: torch.device) -> tuple[Policy, dict[str, str]]:
    """Loads the model of a job, with a slot for each run, and returns its digests too."""
    before = file_states(folder)
    precision = study.models[axes[0].model].precision
    model, chat = load_model(folder, precision, device, plain=study.prompting == "completion")
    weights = model_digests(folder)
    if file_states(folder) != before:
        raise InputError(f"{folder}: was changed while it was loaded; run again once nothing writes there")
    return policy_of(study, axes, model, chat), weights
