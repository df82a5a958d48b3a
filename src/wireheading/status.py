"""How far a study is: what became of each run, and what is left to do.

Nothing is asked of Snakemake or of a scheduler; all is read from the results folder, so it can be asked at any time and
on any machine that sees the folder.
"""

from __future__ import annotations

import json
import re
import socket
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from wireheading.processes import still_alive
from wireheading.records.known import known_valid
from wireheading.records.record import inspect_record
from wireheading.study.config import AXES, Run, Study
from wireheading.study.paths import checkpoint_folder, imported_path

State = Literal["done", "running", "partial", "missing", "stale", "corrupt", "diverged", "imported"]

STATES: tuple[State, ...] = ("done", "imported", "diverged", "running", "partial", "missing", "stale", "corrupt")
"""All states of a run; the first three are ends, and the others are still to be done."""

ENDED = STATES[:3]

ALIVE_SECONDS, ALIVE_INTERVALS = 300.0, 3
"""A job on another machine counts as alive while its latest checkpoint is younger than either: this many seconds, or
this many times the time between its last two. Nothing else of it is seen from here, so a killed one looks alive as
long."""

_HOLDER = re.compile(r"process ([1-9]\d*) on ([^\s,]+)", re.ASCII)
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
class Standing:
    """Where a run stands.

    Attributes:
        run: Which run it is.
        state: What became of it.
        rounds_done: Rounds in its record, its checkpoint or its imported history.
        rounds_left: Rounds that are still to be done: an imported history cannot be gone on from.
        rate: Rounds per second between its last two checkpoints, while it is running; None where there is only one.
        pace: What its record tells of the time that it took, if anything.
    """

    run: Run
    state: State
    rounds_done: int
    rounds_left: int
    rate: float | None = None
    pace: Pace | None = None


def survey(study: Study, now: float) -> list[Standing]:
    """Where every run of a study stands, in the config's order.

    Args:
        study: The study.
        now: The time, in seconds since the epoch.
    """
    valid = known_valid(Path(study.results))
    return [_standing(study, run, now, valid) for run in study.runs()]


def hours_left(study: Study, standings: Sequence[Standing]) -> dict[str, float | None]:
    """GPU hours that are left, by model.

    A job takes as long as its longest run, whatever its number of runs: empty slots are computed too. So a job's rounds
    left are counted once, and take the median time that a round took in finished jobs of the same model: of those whose
    number of slots is nearest. Loading the model is not counted.

    Args:
        study: The study.
        standings: Where its runs stand.

    Returns:
        The hours of each model with runs left; None where no finished run of the model tells how long they take.
    """
    jobs: dict[tuple[str, ...], list[Standing]] = {}
    for standing in standings:
        free = (str(part) for axis, part in zip(AXES, standing.run, strict=True) if axis not in study.engine.lockstep)
        jobs.setdefault((standing.run.model, *free), []).append(standing)
    paces: dict[str, list[Pace]] = {}
    for standing in standings:
        if standing.pace is not None:
            paces.setdefault(standing.run.model, []).append(standing.pace)
    hours: dict[str, float | None] = {}
    for (model, *_), members in jobs.items():
        left = max(standing.rounds_left for standing in members)
        if left and model not in paces:
            hours[model] = None
        elif left:
            nearest = min(abs(pace.slots - len(members)) for pace in paces[model])
            fitting = [pace.seconds for pace in paces[model] if abs(pace.slots - len(members)) == nearest]
            hours[model] = (hours.get(model) or 0.0) + left * statistics.median(fitting) / 3600
    return hours


def as_json(study: Study, standings: Sequence[Standing]) -> str:
    """The standings as a JSON list with an object a run."""
    rows = [
        {
            **standing.run._asdict(),
            "state": standing.state,
            "rounds_done": standing.rounds_done,
            "rounds": study.rounds,
        }
        for standing in standings
    ]
    return json.dumps(rows, indent=2)


def as_table(study: Study, standings: Sequence[Standing]) -> str:
    """The standings as a table, seed and model by task and condition, and below it what is left."""
    cells = {standing.run: _cell(standing) for standing in standings}
    columns = [(task, condition) for task in study.tasks for condition in study.conditions]
    lines = [
        ["", "", *(task if condition == study.conditions[0] else "" for task, condition in columns)],
        ["seed", "model", *(condition for _, condition in columns)],
        *(
            [str(seed), model, *(cells[Run(seed, model, *column)] for column in columns)]
            for seed in study.seeds
            for model in study.enabled_models
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    counts = Counter(standing.state for standing in standings)
    summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([*table, "", f"{len(standings)} runs: {summary}", _left(study, standings)])


def _cell(standing: Standing) -> str:
    if standing.state == "running" and standing.rate is not None:
        return f"running {standing.rounds_done}, {standing.rate:.2g}/s"
    shown = standing.state in ("running", "partial", "diverged")
    return f"{standing.state} {standing.rounds_done}" if shown else standing.state


def _left(study: Study, standings: Sequence[Standing]) -> str:
    runs = sum(standing.state not in ENDED for standing in standings)
    if not runs:
        return "nothing left to do"
    hours = hours_left(study, standings)
    parts = [
        f"{model} {'unknown, as none of its runs is finished' if time_ is None else f'about {time_:.2g}'}"
        for model, time_ in hours.items()
    ]
    return f"{runs} runs left to do; GPU hours: {'; '.join(parts)}"


def _standing(study: Study, run: Run, now: float, valid: set[str]) -> Standing:
    path, digest = study.record_path(run), study.digest(run)
    found = inspect_record(path, digest, valid)
    if found == "valid":
        record = json.loads(path.read_bytes())
        ends: dict[str, State] = {"complete": "done", "diverged": "diverged", "imported": "imported"}
        return Standing(run, ends[record["status"]], record["rounds"], 0, pace=_pace(record))
    progress = _progress(checkpoint_folder(path), digest, now)
    left = max(0, study.rounds - progress.rounds)
    if progress.alive:
        return Standing(run, "running", progress.rounds, left, progress.rate)
    if found != "missing":
        return Standing(run, found, progress.rounds, left)
    if progress.rounds:
        return Standing(run, "partial", progress.rounds, left)
    shorter = imported_path(path)
    if inspect_record(shorter, digest, valid) == "valid":
        return Standing(run, "partial", json.loads(shorter.read_bytes())["rounds"], left)
    return Standing(run, "missing", 0, left)


def _pace(record: Mapping[str, Any]) -> Pace | None:
    """What an imported record, or one made from its last checkpoint alone, cannot tell."""
    rounds = record["timing"].get("rounds")
    return Pace(record["provenance"]["slots"], record["timing"]["seconds"] / rounds) if rounds else None


@dataclass(frozen=True)
class Progress:
    """What a checkpoint tells of an unfinished run: see `Standing`."""

    rounds: int = 0
    rate: float | None = None
    alive: bool = False


def _progress(folder: Path, digest: str, now: float) -> Progress:
    """Reads the names, times and heads of a checkpoint's states; those of other settings do not count."""
    states: list[tuple[int, float]] = []
    for path in folder.glob("*/state-*.safetensors"):
        named = _STATE.fullmatch(path.name)
        try:
            if named and _digest_of_state(path) == digest:
                states.append((int(named[1]), path.stat().st_mtime))
        except FileNotFoundError:
            continue  # A newer one took its place in this moment.
    here = _held_here(folder / "lock")
    if not states:
        return Progress(alive=bool(here))
    states.sort()
    (earlier, before), (rounds, latest) = states[0], states[-1]
    interval = latest - before
    rate = (rounds - earlier) / interval if interval > 0 else None
    recent = now - latest < max(ALIVE_SECONDS, ALIVE_INTERVALS * interval)
    return Progress(rounds, rate, recent if here is None else here)


def _digest_of_state(path: Path) -> str | None:
    """The digest of the settings that a state was made with; None where it is damaged, so that it will not be used."""
    try:
        with safe_open(path, framework="numpy") as file:
            digest = json.loads((file.metadata() or {})["identity"])["digest"]
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return str(digest)


def _held_here(lock: Path) -> bool | None:
    """Whether the process that a run's lock names is alive; None where it is not one of this machine.

    The lock itself is not tried: whoever tries it holds it for a moment, and a job that begins then would fail.
    """
    try:
        holder = _HOLDER.match(lock.read_text(encoding="utf-8", errors="replace"))
        written = lock.stat().st_mtime
    except FileNotFoundError:
        return None
    if holder is None or holder[2] != socket.gethostname():
        return None
    return still_alive(int(holder[1]), written)
