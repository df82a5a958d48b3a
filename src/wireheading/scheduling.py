"""Which jobs there are, and which records and tables must be redone: what the workflow asks while Snakemake parses it.

Snakemake decides by names and modification times; it cannot look inside a record. So every record is checked during
parsing, and the jobs of runs without a valid record are requested. None of this relies on Snakemake's own memory, so it
works in a fresh clone with copied results.

Snakemake also deletes what a failed job has made, and restores what was there before. So records and tables are not
outputs of the jobs that write them. The output of such a job is a token, an empty file that belongs to this invocation,
and a rule without a job declares that the records and tables exist once the token does. Whatever happens to a job,
nothing that it or another invocation has finished is lost.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wireheading.analysis.currency import analysis_is_current, tables_are_current
from wireheading.engine.folders import problem_of_holder, remove_checkpoints
from wireheading.errors import ConfigError
from wireheading.files import writing
from wireheading.records.cells import differing_inputs
from wireheading.records.known import known_valid, remember_valid
from wireheading.records.record import State, inspect_record, recorded_inputs
from wireheading.study.config import AXES, Run, Study, load_study
from wireheading.study.paths import Analysis, Tables, checkpoint_folder
from wireheading.study.selection import left_out
from wireheading.study.thresholds import keep_started

INVOCATION = "WIREHEADING_INVOCATION"
"""Environment variable that passes the name of this invocation to Snakemake's job processes."""

TARGETS = "WIREHEADING_TARGETS"
"""Environment variable that passes the records named on the command line to Snakemake's job processes."""

_RECORD = re.compile(r"(?:.*/)?(\d+)/([^/]+)/([^/]+)/([^/.]+)\.json")


def requested_runs(study: Study, targets: Iterable[str]) -> list[Run]:
    """The runs whose records are targets, or all runs if no target is a record.

    Job processes parse the workflow again with other targets, and read those of the main process from the environment.

    Raises:
        ConfigError: A target looks like the path of a record, but the study has no such run.
    """
    named = os.environ.get(TARGETS, "").split() or list(targets)
    paths = {os.path.normpath(name) for name in named}
    runs = {str(study.record_path(run)): run for run in study.runs()}
    for path in sorted(paths - runs.keys()):
        if written := _RECORD.fullmatch(path):
            raise ConfigError(
                f"{path}: not a run of this configuration: {_unknown_part(study, path, written.groups())}"
            )
    chosen = [run for path, run in runs.items() if path in paths]
    if not chosen:
        return list(runs.values())
    os.environ[TARGETS] = " ".join(named)
    return chosen


def declare_part(config: dict[str, Any], whole: Mapping[str, Any]) -> None:
    """Gives the report a place of its own where `--config` makes it another one than that of the study in its files.

    A part of the study is stated under the key `only`, so that whoever reads the config knows that it is one. With
    other thresholds than the files', the key `reports` names a folder inside that of the study.

    Args:
        config: The merged content of the config files and of `--config`.
        whole: The merged content of the config files alone.

    Raises:
        ConfigError: The config cannot be run.
    """
    study = load_study(config)
    try:
        planned = load_study(whole)
    except ConfigError:
        return  # The files alone are no study, so there is nothing that this is a part of.
    if narrowed := left_out(study, planned):
        config["only"] = {**config.get("only", {}), **narrowed}
    if study.analysis != planned.analysis:
        # Snakemake may hand the config on with this folder already in it.
        folder = f"thresholds-{study.analysis.digest()[:8]}"
        reports = config.get("reports", Study.model_fields["reports"].default)
        config["reports"] = reports if Path(reports).name == folder else f"{reports}/{folder}"


def keep_thresholds(study: Study, whole: Mapping[str, Any]) -> None:
    """Writes down the thresholds that a study starts with, unless it has started before.

    Args:
        study: The study.
        whole: The merged content of its config files alone, whose thresholds these are.

    Raises:
        WriteError: The results folder is not writable, or its disk is full.
    """
    try:
        planned = load_study(whole)
    except ConfigError:
        planned = study  # The files alone are no study.
    keep_started(study, planned.analysis)


def is_dry_run(arguments: Iterable[str]) -> bool:
    """Whether Snakemake was called with `-n`, which it does not tell while parsing."""
    return any(re.fullmatch("-[A-Za-z]*n[A-Za-z]*|--dry-?run", argument) for argument in arguments)


def begin_invocation(study: Study) -> None:
    """Names this invocation of Snakemake, and removes the tokens of dead ones."""
    host = re.sub("[^A-Za-z0-9]", "-", socket.gethostname())
    os.environ[INVOCATION] = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    for token in Path(study.results, ".jobs").glob(f"{host}-*"):
        try:
            os.kill(int(token.name.partition(".")[0].split("-")[-2]), 0)
        except ProcessLookupError:
            token.unlink(missing_ok=True)
        except PermissionError:
            continue


def job_name(study: Study) -> str:
    """The name of a job, with Snakemake's wildcards for the axes that are not in lockstep."""
    return ".".join(f"{{{axis}}}" for axis in AXES if axis not in study.engine.lockstep) or "all"


def token(study: Study, job: str) -> str:
    """The empty file that a job of this invocation writes."""
    return f"{study.results}/.jobs/{os.environ[INVOCATION]}.{job}"


def run_tokens(study: Study, states: Mapping[Run, State]) -> list[str]:
    """The tokens of the jobs with a run that has no valid record."""
    names = dict.fromkeys(job_name(study).format(**_texts(run)) for run in states if states[run] != "valid")
    return [token(study, name) for name in names]


def held_runs(study: Study, states: Mapping[Run, State]) -> list[str]:
    """A line for each run without a valid record that another process is working on."""
    folders = (checkpoint_folder(study.record_path(run)) for run, state in states.items() if state != "valid")
    return [problem for folder in folders if (problem := problem_of_holder(folder))]


def remove_finished_checkpoints(study: Study, states: Mapping[Run, State]) -> None:
    """Removes the checkpoints of runs whose records are valid."""
    for run, state in states.items():
        if state == "valid":
            remove_checkpoints(checkpoint_folder(study.record_path(run)), study.digest(run))


def job_runs(study: Study, runs: Iterable[Run]) -> dict[tuple[str, ...], list[Run]]:
    """The runs of each job in the config's order, by the job's key."""
    jobs: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        jobs.setdefault(job_key(study, _texts(run)), []).append(run)
    return jobs


def job_key(study: Study, wildcards: Mapping[str, str]) -> tuple[str, ...]:
    """What identifies a job: its values on the axes that are not in lockstep."""
    return tuple(wildcards[axis] for axis in AXES if axis not in study.engine.lockstep)


class RecordStates(dict[Run, State]):
    """The state of each run's record, found when it is first requested.

    Snakemake parses the workflow again for every job, and each job requests only its own runs.
    """

    def __init__(self, study: Study):
        super().__init__()
        self.study = study
        self.known = known_valid(Path(study.results))
        self.valid = set(self.known)

    def __missing__(self, run: Run) -> State:
        path = self.study.record_path(run)
        # Computing a digest takes longer than seeing that there is no file.
        self[run] = inspect_record(path, self.study.digest(run), self.valid) if path.exists() else "missing"
        return self[run]

    def of(self, runs: Iterable[Run]) -> dict[Run, State]:
        """The states of some runs. Which records are valid is saved, so that the next call is faster.

        Raises:
            WriteError: The disk is full.
        """
        states = {run: self[run] for run in runs}
        if self.valid != self.known:
            remember_valid(Path(self.study.results), self.valid)
            self.known = set(self.valid)
        return states


def mixed_cells(study: Study, states: Mapping[Run, State]) -> list[str]:
    """A line for each cell whose valid records come from different inputs."""
    valid = [run for run, state in states.items() if state == "valid"]
    problems = differing_inputs({run: recorded_inputs(study.record_path(run)) for run in valid})
    return [f"{model}/{task}: {problem}" for (model, task), problem in problems.items()]


def mark_for_redoing(study: Study, states: Mapping[Run, State]) -> None:
    """Writes a marker that is newer than everything outdated: an input of the rules that redo it.

    Raises:
        WriteError: The results folder is not writable, or its disk is full.
    """
    outdated = [study.record_path(run) for run, state in states.items() if state in ("stale", "corrupt")]
    if not tables_are_current(study, states):
        outdated += vars(Tables.of(study)).values()
    if not analysis_is_current(study):
        outdated += vars(Analysis.of(study)).values()
    outdated = [path for path in outdated if path.exists()]
    if not outdated:
        return
    marker = Path(token(study, "redo"))
    with writing(marker):
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        now = marker.stat().st_mtime
        for path in outdated:
            # A file from the future would stay newer than its replacement.
            if path.stat().st_mtime >= now:
                os.utime(path, (now - 1, now - 1))


def redo_marker(study: Study) -> list[str]:
    """The marker that `mark_for_redoing` wrote, if any."""
    marker = token(study, "redo")
    return [marker] if Path(marker).exists() else []


def check_folders(study: Study) -> None:
    """Checks that no folder of the config is a file or lies inside one.

    Raises:
        ConfigError: Names the key and the file.
    """
    for key in ("results", "resources", "reports"):
        folder = Path(getattr(study, key))
        for path in (folder, *folder.parents):
            if os.path.lexists(path) and not path.is_dir():
                raise ConfigError(f"config: {key} = {str(folder)!r}: {path} is a file; name a folder")


def _unknown_part(study: Study, path: str, names: Sequence[str]) -> str:
    """Which part of a record's path is not in the study, and what to do about it."""
    known = (map(str, study.seeds), study.enabled_models, study.enabled_tasks, study.conditions)
    for axis, name, allowed in zip(AXES, names, map(list, known), strict=True):
        if name not in allowed:
            return (
                f"its {axis}s are {', '.join(allowed)}; give the config of another study with --configfile, or its "
                "profile (profiles/demo) with --profile"
            )
    return f"its records lie in {study.results}; name it {study.results}/{'/'.join(path.split('/')[-4:])}"


def _texts(run: Run) -> dict[str, str]:
    return {axis: str(value) for axis, value in run._asdict().items()}
