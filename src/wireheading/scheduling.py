"""Which records a job makes and which of them are to be made again: what the workflow asks while it is parsed.

Snakemake decides by names and modification times; it cannot see inside a record. So while parsing, each record's bytes
are checked, and the jobs with a run that has no valid record are asked for. That needs nothing that Snakemake
remembered, so it works in a fresh clone with copied results.

Snakemake also deletes what a failed job has made, and puts back what was there before it began. So records and tables
are no output of the jobs that make them: such a job has an empty file as its output, a token that belongs to this
invocation alone, and a rule without a job says that records and tables are there once the token is. Whatever happens to
a job, nothing is lost that it or another invocation finished.
"""

from __future__ import annotations

import csv
import io
import os
import re
import secrets
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wireheading.engine.folders import problem_of_holder, remove_checkpoints
from wireheading.errors import ConfigError
from wireheading.files import writing
from wireheading.records.cells import differing_inputs
from wireheading.records.known import known_valid, remember_valid
from wireheading.records.record import State, inspect_record, recorded_inputs, seal_of
from wireheading.study.config import AXES, Run, Study
from wireheading.study.paths import Analysis, Tables, checkpoint_folder

INVOCATION = "WIREHEADING_INVOCATION"
"""Environment variable that tells Snakemake's job processes which invocation of Snakemake they belong to."""

TARGETS = "WIREHEADING_TARGETS"
"""Environment variable that tells Snakemake's job processes which records were named on the command line."""

_RECORD = re.compile(r"(?:.*/)?(\d+)/([^/]+)/([^/]+)/([^/.]+)\.json")


def requested_runs(study: Study, targets: Iterable[str]) -> list[Run]:
    """The runs whose records are targets; all runs where no record is named.

    A job's processes parse the workflow anew, with other targets: they take the first process's from the environment.

    Raises:
        ConfigError: A target is written as a record's path, but no run of the study has that record.
    """
    named = os.environ.get(TARGETS, "").split() or list(targets)
    paths = {os.path.normpath(name) for name in named}
    runs = {str(study.record_path(run)): run for run in study.runs()}
    for path in sorted(paths - runs.keys()):
        if written := _RECORD.fullmatch(path):
            raise ConfigError(f"{path}: is no run of this configuration: {_odd_part(study, path, written.groups())}")
    chosen = [run for path, run in runs.items() if path in paths]
    if not chosen:
        return list(runs.values())
    os.environ[TARGETS] = " ".join(named)
    return chosen


def is_dry_run(arguments: Iterable[str]) -> bool:
    """Whether Snakemake was called with `-n`: it does not say so while it parses."""
    return any(re.fullmatch("-[A-Za-z]*n[A-Za-z]*|--dry-?run", argument) for argument in arguments)


def begin_invocation(study: Study) -> None:
    """Gives this invocation of Snakemake a name, and removes the tokens of dead ones."""
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
    """The name of a job, with Snakemake's wildcards in it for the axes that do not advance in lockstep."""
    return ".".join(f"{{{axis}}}" for axis in AXES if axis not in study.engine.lockstep) or "all"


def token(study: Study, job: str) -> str:
    """The empty file that this invocation's job makes."""
    return f"{study.results}/.jobs/{os.environ[INVOCATION]}.{job}"


def run_tokens(study: Study, states: Mapping[Run, State]) -> list[str]:
    """The tokens of the jobs with a run that has no valid record."""
    names = dict.fromkeys(job_name(study).format(**_texts(run)) for run in states if states[run] != "valid")
    return [token(study, name) for name in names]


def held_runs(study: Study, states: Mapping[Run, State]) -> list[str]:
    """A line for each run without a valid record that another process is doing."""
    folders = (checkpoint_folder(study.record_path(run)) for run, state in states.items() if state != "valid")
    return [problem for folder in folders if (problem := problem_of_holder(folder))]


def remove_finished_checkpoints(study: Study, states: Mapping[Run, State]) -> None:
    """Removes the checkpoints of runs whose records are valid."""
    for run, state in states.items():
        if state == "valid":
            remove_checkpoints(checkpoint_folder(study.record_path(run)), study.digest(run))


def job_runs(study: Study, runs: Iterable[Run]) -> dict[tuple[str, ...], list[Run]]:
    """The runs of each job, in the config's order, by the job's wildcards in the order of the axes."""
    jobs: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        jobs.setdefault(job_key(study, _texts(run)), []).append(run)
    return jobs


def job_key(study: Study, wildcards: Mapping[str, str]) -> tuple[str, ...]:
    """What tells a job from the others: its wildcards, which are the axes that are not in lockstep."""
    return tuple(wildcards[axis] for axis in AXES if axis not in study.engine.lockstep)


class RecordStates(dict[Run, State]):
    """What the record of each run is worth; looked at when it is first asked for.

    Snakemake parses the workflow anew for each job, which asks for its own runs alone.
    """

    def __init__(self, study: Study):
        super().__init__()
        self.study = study
        self.known = known_valid(Path(study.results))
        self.valid = set(self.known)

    def __missing__(self, run: Run) -> State:
        path = self.study.record_path(run)
        # Most of a new study has no records, and a digest takes longer than a look.
        self[run] = inspect_record(path, self.study.digest(run), self.valid) if path.exists() else "missing"
        return self[run]

    def of(self, runs: Iterable[Run]) -> dict[Run, State]:
        """Those of some runs; which records were found valid is remembered for the next look.

        Raises:
            WriteError: The disk is full.
        """
        states = {run: self[run] for run in runs}
        if self.valid != self.known:
            remember_valid(Path(self.study.results), self.valid)
            self.known = set(self.valid)
        return states


def mixed_cells(study: Study, states: Mapping[Run, State]) -> list[str]:
    """The cells whose valid records were made of different inputs, a line each."""
    valid = [run for run, state in states.items() if state == "valid"]
    problems = differing_inputs({run: recorded_inputs(study.record_path(run)) for run in valid})
    return [f"{model}/{task}: {problem}" for (model, task), problem in problems.items()]


def tables_are_current(study: Study, states: Mapping[Run, State]) -> bool:
    """Whether the tables are whole and of the records there are, and no more records are to be made.

    The table of records says which runs the tables are of, which of them had a valid record, and its SHA-256.
    """
    tables = Tables.of(study)
    if not study.partial and set(states.values()) != {"valid"}:
        return False
    if not all(path.exists() and _whole(path) for path in vars(tables).values()):
        return False
    then = _states_in(tables.records)
    return list(then) == study.runs() and all(
        then[run] == ("valid", seal_of(study.record_path(run)))
        if state == "valid"
        else then[run][0] == ("missing" if state == "missing" else "unusable")
        for run, state in states.items()
    )


def analysis_is_current(study: Study) -> bool:
    """Whether the results of the analysis are whole and of these thresholds."""
    analysis = Analysis.of(study)
    return all(path.exists() and _whole(path) for path in vars(analysis).values()) and (
        analysis.thresholds.read_bytes() == study.analysis.text().encode()
    )


def _states_in(records: Path) -> dict[Run, tuple[str, str]]:
    """The states that the table of records names, and the SHA-256 of valid records; nothing where it is damaged."""
    try:
        with records.open(encoding="utf-8", newline="") as file:
            return {
                Run(int(row["seed"]), row["model"], row["task"], row["condition"]): (
                    row["state"] if row["state"] in ("missing", "unusable") else "valid",
                    row["sha256"],
                )
                for row in csv.DictReader(file)
            }
    except (csv.Error, ValueError, KeyError, TypeError):
        return {}


def _whole(path: Path) -> bool:
    """Whether a table that was derived has both its ends: it is neither truncated nor something else altogether."""
    if not path.exists():
        return True  # Snakemake makes what is missing.
    if path.suffix == ".parquet":
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            footer = file.read()
            file.seek(0)
            head = file.read(4)
        return head == footer[4:] == b"PAR1" and int.from_bytes(footer[:4], "little") <= size - 12
    if path.suffix == ".csv":
        try:
            text = path.read_text(encoding="utf-8")
            return text.endswith("\n") and len({len(row) for row in csv.reader(io.StringIO(text, ""))}) == 1
        except (csv.Error, ValueError):
            return False
    return True


def mark_for_redoing(study: Study, states: Mapping[Run, State]) -> None:
    """Makes a file that is newer than all that is there and outdated: an input of the rules that make it anew.

    Raises:
        WriteError: The folder of results may not be written to, or its disk is full.
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
            # Files from the future would stay newer than whatever replaces them.
            if path.stat().st_mtime >= now:
                os.utime(path, (now - 1, now - 1))


def redo_marker(study: Study) -> list[str]:
    """The file that `mark_for_redoing` made, if it made one."""
    marker = token(study, "redo")
    return [marker] if Path(marker).exists() else []


def summary(states: Mapping[Run, State]) -> str:
    """How many records there are of each kind, and the names of those that are to be made, unless that is all."""
    counts = Counter(states.values())
    lines = ["records: " + ", ".join(f"{counts[state]} {state}" for state in ("valid", "missing", "stale", "corrupt"))]
    todo = [f"  {state}: {run}" for run, state in states.items() if state != "valid"]
    return "\n".join(lines + (todo if len(todo) < len(states) else []))


def check_folders(study: Study) -> None:
    """Checks that no folder of the config is a file, nor lies in one.

    Raises:
        ConfigError: Names the key and the file.
    """
    for key in ("results", "resources", "reports"):
        folder = Path(getattr(study, key))
        for path in (folder, *folder.parents):
            if os.path.lexists(path) and not path.is_dir():
                raise ConfigError(f"config: {key} = {str(folder)!r}: {path} is a file; name a folder")


def _odd_part(study: Study, path: str, names: Sequence[str]) -> str:
    """Which part of a record's path the study does not know, and what to do."""
    known = (map(str, study.seeds), study.enabled_models, study.tasks, study.conditions)
    for axis, name, allowed in zip(AXES, names, map(list, known), strict=True):
        if name not in allowed:
            return (
                f"its {axis}s are {', '.join(allowed)}; give the config of another study with --configfile, or its "
                "profile (profiles/demo) with --profile"
            )
    return f"its records lie in {study.results}; name it {study.results}/{'/'.join(path.split('/')[-4:])}"


def _texts(run: Run) -> dict[str, str]:
    return {axis: str(value) for axis, value in run._asdict().items()}
