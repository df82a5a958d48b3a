"""How far a study is: what became of each run, and what is left to do.

Everything is read from the results folder, nothing from Snakemake or a scheduler, so it works at any time and on any
machine that sees the folder.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from wireheading.errors import printable
from wireheading.jobs import Job, duration, job_files, job_line, jobs_of, short_digest
from wireheading.records.known import known_valid
from wireheading.records.record import inspect_record
from wireheading.study.config import AXES, Run, Study
from wireheading.study.paths import checkpoint_folder, imported_path

State = Literal["done", "running", "partial", "missing", "stale", "corrupt", "diverged", "imported"]

STATES: tuple[State, ...] = ("done", "imported", "diverged", "running", "partial", "missing", "stale", "corrupt")
"""All states of a run. Those in the first three have ended; the others are still to be done."""

ENDED = STATES[:3]

_STATE = re.compile(r"state-(\d{1,9})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class Pace:
    """How fast a finished run was.

    Attributes:
        slots: Slots of its job.
        seconds: Wall time of one round of the whole job, in seconds.
    """

    slots: int
    seconds: float


@dataclass(frozen=True)
class RunStatus:
    """What became of a run, and what is left of it.

    Attributes:
        run: Which run it is.
        state: What became of it.
        rounds_done: Rounds in its record, its checkpoint or its imported history, or that its job tells of.
        rounds_left: Rounds that are still to be done: an imported history cannot be resumed.
        pace: How long it took, if its record says so.
    """

    run: Run
    state: State
    rounds_done: int
    rounds_left: int
    pace: Pace | None = None


@dataclass(frozen=True)
class Survey:
    """How far a study is.

    Attributes:
        runs: The status of every run, in the order of the configuration.
        jobs: The jobs that do its runs, and those that died.
        strangers: Files among those of the jobs that no job has written.
    """

    runs: list[RunStatus]
    jobs: list[Job]
    strangers: list[Path]


def survey(study: Study, now: float) -> Survey:
    """Reads how far a study is.

    Args:
        study: The study.
        now: The time, in seconds since the epoch.
    """
    results = Path(study.results)
    valid = known_valid(results)
    digests = {str(run): short_digest(study, run) for run in study.runs()}
    jobs = jobs_of(results, digests, now)
    running = {
        name: told.rounds
        for job in jobs
        if job.alive
        for name, told in job.told.runs.items()
        if told.digest == digests.get(name)
    }
    statuses = [_status(study, run, running.get(str(run)), valid) for run in study.runs()]
    return Survey(statuses, jobs, [path for path, told in job_files(results).items() if told is None])


def hours_left(study: Study, statuses: Sequence[RunStatus]) -> dict[str, float | None]:
    """Hours of jobs that are left, by model; a job has one GPU, or none.

    A job takes as long as its longest run, because empty slots are computed too. So its remaining rounds are counted
    once. A round is taken to last the median of finished jobs of the same model with the nearest number of slots.
    Loading the model is not counted.

    Args:
        study: The study.
        statuses: Those of its runs.

    Returns:
        The hours of each model with runs left; None where no run of the model is finished.
    """
    jobs: dict[tuple[str, ...], list[RunStatus]] = {}
    for status in statuses:
        free = (str(part) for axis, part in zip(AXES, status.run, strict=True) if axis not in study.engine.lockstep)
        jobs.setdefault((status.run.model, *free), []).append(status)
    paces: dict[str, list[Pace]] = {}
    for status in statuses:
        if status.pace is not None:
            paces.setdefault(status.run.model, []).append(status.pace)
    hours: dict[str, float | None] = {}
    for (model, *_), members in jobs.items():
        left = max(status.rounds_left for status in members)
        if left and model not in paces:
            hours[model] = None
        elif left:
            nearest = min(abs(pace.slots - len(members)) for pace in paces[model])
            fitting = [pace.seconds for pace in paces[model] if abs(pace.slots - len(members)) == nearest]
            hours[model] = (hours.get(model) or 0.0) + left * statistics.median(fitting) / 3600
    return hours


def as_json(study: Study, statuses: Sequence[RunStatus]) -> str:
    """The statuses as a JSON list with an object for each run."""
    rows = [
        {
            **status.run._asdict(),
            "state": status.state,
            "rounds_done": status.rounds_done,
            "rounds": study.rounds,
        }
        for status in statuses
    ]
    return json.dumps(rows, indent=2)


def as_table(study: Study, statuses: Sequence[RunStatus]) -> str:
    """The statuses as a table, seed and model by task and condition, followed by what is left."""
    cells = {status.run: _cell(status) for status in statuses}
    columns = [(task, condition) for task in study.enabled_tasks for condition in study.conditions]
    first = next(iter(study.conditions))
    lines = [
        ["", "", *(task if condition == first else "" for task, condition in columns)],
        ["seed", "model", *(condition for _, condition in columns)],
        *(
            [str(seed), model, *(cells[Run(seed, model, *column)] for column in columns)]
            for seed in study.seeds
            for model in study.enabled_models
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*table, "", *left_text(study, statuses)])


def left_text(study: Study, statuses: Sequence[RunStatus]) -> list[str]:
    """How many runs are in each state, and what is left to do."""
    counts = Counter(status.state for status in statuses)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return [f"{len(statuses)} runs: {summary}", _left(study, statuses)]


def jobs_text(found: Survey) -> list[str]:
    """A line for each job, and for each that died without a word."""
    lines = []
    for job in found.jobs:
        line = job_line(job.told, bar=True)
        if not job.alive:
            line = (
                f"{printable(job.told.name)}   died: process {job.told.process} on {printable(job.told.host)} was last "
                f"seen {duration(job.age)} ago, at round {job.told.at} of {job.told.of}; the same command goes on"
            )
        lines.append(line)
    return lines + [f"{printable(str(path))}: was written by no job; remove it" for path in found.strangers]


def _cell(status: RunStatus) -> str:
    shown = status.state in ("running", "partial", "diverged")
    return f"{status.state} {status.rounds_done}" if shown else status.state


def _left(study: Study, statuses: Sequence[RunStatus]) -> str:
    runs = sum(status.state not in ENDED for status in statuses)
    if not runs:
        return "nothing left to do"
    hours = hours_left(study, statuses)
    parts = [
        f"{model} {'unknown, as none of its runs is finished' if time_ is None else f'about {time_:.2g}'}"
        for model, time_ in hours.items()
    ]
    return f"{runs} runs left to do; job hours: {'; '.join(parts)}"


def _status(study: Study, run: Run, running: int | None, valid: set[str]) -> RunStatus:
    """The status of a run. Its record counts first; `running` are the rounds that a living job tells of."""
    path, digest = study.record_path(run), study.digest(run)
    found = inspect_record(path, digest, valid)
    if found == "valid":
        record = json.loads(path.read_bytes())
        ends: dict[str, State] = {"complete": "done", "diverged": "diverged", "imported": "imported"}
        return RunStatus(run, ends[record["status"]], record["rounds"], 0, pace=_pace(record))
    saved = _saved_rounds(checkpoint_folder(path), digest)
    if running is not None:
        done = max(running, saved)
        return RunStatus(run, "running", done, max(0, study.rounds - done))
    left = max(0, study.rounds - saved)
    if found != "missing":
        return RunStatus(run, found, saved, left)
    if saved:
        return RunStatus(run, "partial", saved, left)
    shorter = imported_path(path)
    if inspect_record(shorter, digest, valid) == "valid":
        return RunStatus(run, "partial", json.loads(shorter.read_bytes())["rounds"], left)
    return RunStatus(run, "missing", 0, left)


def _pace(record: Mapping[str, Any]) -> Pace | None:
    """How fast a run was; None for an imported record and for one that was written from its last checkpoint alone."""
    rounds = record["timing"].get("rounds")
    return Pace(record["provenance"]["slots"], record["timing"]["seconds"] / rounds) if rounds else None


def _saved_rounds(folder: Path, digest: str) -> int:
    """Rounds in the latest whole checkpoint of a run; those of other settings do not count."""
    rounds = 0
    for path in folder.glob("*/state-*.safetensors"):
        named = _STATE.fullmatch(path.name)
        try:
            if named and int(named[1]) > rounds and _digest_of_state(path) == digest:
                rounds = int(named[1])
        except FileNotFoundError:
            continue  # A newer one took its place in this moment.
    return rounds


def _digest_of_state(path: Path) -> str | None:
    """The digest of the settings that a state was made with; None where it is damaged, so that it will not be used."""
    try:
        with safe_open(path, framework="numpy") as file:
            digest = json.loads((file.metadata() or {})["identity"])["digest"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return str(digest)
