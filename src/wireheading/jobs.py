"""What jobs tell of themselves while they run: a small file each, which any machine that sees the results can read.

A file lies in the study's results folder and is named by the process that writes it. It holds names, counts and means,
and nothing that a model wrote.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wireheading.errors import printable
from wireheading.processes import still_alive
from wireheading.study.config import Run, Study
from wireheading.study.paths import jobs_folder

SILENT_SECONDS = 150.0
"""Age of a file from which the job of another machine counts as dead: it touches its file several times as often."""

DRAWN = "WIREHEADING_DRAWN"
"""Environment variable that tells job processes that the lines of jobs are drawn on the terminal: see `console`."""

GOES_ON = "the same command goes on"
"""What the last line of a job's log says where it was asked to stop and lost nothing."""

CLEAR = "\x1b[J"
"""Clears the terminal from the cursor on."""

BAR = 8
"""Characters of a bar."""

Text = Annotated[str, Field(max_length=300)]
Round = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RunRounds(_Part):
    """A run of a job: the digest of its settings, shortened, and the rounds that it has."""

    digest: Text
    rounds: Round


class Means(_Part):
    """Means over the last rounds of all runs of a condition; no reward where that is the score."""

    reward: float | None
    score: float


class JobFile(_Part):
    """What a job tells of itself.

    Attributes:
        name: The job, in words.
        host: The machine.
        process: Its process there.
        of: Rounds of a run.
        at: Rounds that every unfinished run of the job has.
        doing: What it does, where that is not training.
        saved: Rounds of every unfinished run that are in a checkpoint.
        pace: Rounds per second lately; None before there are any.
        left: Seconds of training left, at that pace.
        means: By condition.
        runs: By name.
    """

    name: Text
    host: Text
    process: Annotated[int, Field(gt=0)]
    of: Round
    at: Round
    doing: Text = ""
    saved: Round | None = None
    pace: Annotated[float, Field(ge=0)] | None = None
    left: Annotated[float, Field(ge=0)] | None = None
    means: dict[Text, Means] = {}
    runs: dict[Text, RunRounds] = {}


@dataclass(frozen=True)
class Job:
    """A job as whoever reads its file sees it.

    Attributes:
        told: What it told.
        age: Seconds since then.
        alive: Whether it still runs.
    """

    told: JobFile
    age: float
    alive: bool


def job_name(study: Study, run: Run) -> str:
    """The name of a run's job: the model, and what the runs of the job have in common besides."""
    fixed = [axis for axis in ("seed", "task", "condition") if axis not in study.engine.lockstep]
    parts = [f"seed {run.seed}" if axis == "seed" else str(getattr(run, axis)) for axis in fixed]
    return " · ".join([run.model, *parts])


def short_digest(study: Study, run: Run) -> str:
    """The digest of a run's settings, as the files of jobs have it."""
    return study.digest(run)[:16]


def job_files(results: Path) -> dict[Path, JobFile | None]:
    """The files of all jobs in a results folder; None for one that no job has written."""
    files: dict[Path, JobFile | None] = {}
    for path in sorted(jobs_folder(results).glob("*.json")):
        try:
            files[path] = JobFile.model_validate_json(path.read_bytes())
        except ValidationError:
            files[path] = None
        except OSError:
            continue  # The job has ended in this moment, or the file server does not answer; the next look will tell.
    return files


def jobs_of(results: Path, digests: Mapping[str, str], now: float) -> list[Job]:
    """The jobs that do runs of a study, by name; jobs of other settings in the same results folder are left out.

    Args:
        results: The results folder.
        digests: The short digests of the study's runs, by the runs' names.
        now: The time, in seconds since the epoch.
    """
    jobs = []
    for path, told in job_files(results).items():
        if told is None or not any(digests.get(name) == run.digest for name, run in told.runs.items()):
            continue
        try:
            written = path.stat().st_mtime
        except OSError:
            continue
        here = told.host == socket.gethostname()
        alive = still_alive(told.process, written) if here else now - written < SILENT_SECONDS
        jobs.append(Job(told, max(0.0, now - written), alive))
    return sorted(jobs, key=lambda job: (job.told.name, not job.alive))


def job_line(told: JobFile, bar: bool = False) -> str:
    """A job in a line: name, rounds, what is left, and what it finds."""
    if told.doing and not told.means:
        return printable(f"{told.name}   {told.doing}")
    drawn = ""
    if bar:
        full = BAR * told.at // max(told.of, 1)
        drawn = f"{'▓' * full}{'░' * (BAR - full)} "
    parts = []
    if told.doing:
        parts.append(told.doing)
    elif told.left:
        parts.append(f"{duration(told.left)} left")
    if told.pace:
        parts.append(f"{told.pace:.3g} rounds/s" if told.pace >= 1 else f"{told.pace * 60:.2g} rounds/min")
    if told.saved:
        parts.append(f"saved at {told.saved}")
    for condition, means in sorted(told.means.items(), key=lambda item: item[1].reward is None):
        reward = "" if means.reward is None else f"reward {_decimal(means.reward)} "
        parts.append(f"{condition} {reward}score {_decimal(means.score)}")
    return printable(f"{told.name}   {told.at}/{told.of} {drawn}{' · '.join(parts)}")


def clearing(stream: TextIO) -> str:
    """What a message begins with, so that nothing is left of the drawn lines that it is written over."""
    return f"\r{CLEAR}" if os.environ.get(DRAWN) and stream.isatty() else ""


def duration(seconds: float) -> str:
    """A time in words, as exact as one wants to know it: `35 s`, `4 min`, `1 h 12 min`."""
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if 0 <= value < 0.995 else f"{value:.2f}"
