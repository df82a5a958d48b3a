"""Which records a job makes and which of them are to be made again: what the workflow asks while it is parsed.

Snakemake decides by names and modification times; it cannot see inside a record. So while parsing, each record's bytes
are checked, and for one that is stale or corrupt a small file, newer than the record, becomes an input of its job.
Tables of other records, and an analysis with other thresholds, are redone in the same way. That needs nothing that
Snakemake remembered, so it works in a fresh clone with copied results.
"""

from __future__ import annotations

import csv
import io
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wireheading.errors import ConfigError
from wireheading.files import writing
from wireheading.records.cells import differing_inputs
from wireheading.records.known import known_valid, remember_valid
from wireheading.records.record import State, inspect_record, recorded_inputs
from wireheading.study.config import AXES, Run, Study
from wireheading.study.paths import Analysis, Tables

TARGETS = "WIREHEADING_TARGETS"
"""Environment variable that tells Snakemake's job processes which records were named on the command line."""

_RECORD = re.compile(r"(?:.*/)?(\d+)/([^/]+)/([^/]+)/([^/.]+)\.json")


def record_pattern(study: Study) -> str:
    """The path of a record with Snakemake's wildcards in it."""
    return f"{study.results}/{{seed}}/{{model}}/{{task}}/{{condition}}.json"


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


def job_outputs(study: Study, runs: Sequence[Run]) -> list[str]:
    """The paths of all records that one job makes: the axes in lockstep filled in, wildcards for the others."""
    free = {axis: f"{{{axis}}}" for axis in AXES if axis not in study.engine.lockstep}
    pattern = record_pattern(study)
    return list(dict.fromkeys(pattern.format(**{**_texts(run), **free}) for run in runs))


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


def redo_marker(study: Study, run: Run, state: State) -> Path:
    """The file whose existence makes Snakemake redo a run's record."""
    return Path(study.results, ".redo", f"{state}.{'.'.join(_texts(run).values())}")


def tables_marker(study: Study, states: Mapping[Run, State]) -> list[Path]:
    """The file that makes Snakemake redo tables that are damaged or not of the records there are; none if they are.

    The table of records says which runs the tables are of, and which of them had a valid record.
    """
    tables = Tables.of(study)
    if not tables.records.exists():
        return []
    then = _states_in(tables.records)
    same = list(then) == study.runs() and all(
        (then[run] == "missing") == (state == "missing") and (then[run] in ("missing", "unusable") or state == "valid")
        for run, state in states.items()
    )
    return [] if same and all(map(_whole, vars(tables).values())) else [Path(study.results, ".redo", "tables")]


def analysis_marker(study: Study) -> list[Path]:
    """The file that makes Snakemake redo an analysis that is damaged or of other thresholds; none if it is neither."""
    analysis = Analysis.of(study)
    if not analysis.thresholds.exists():
        return []
    same = analysis.thresholds.read_bytes() == study.analysis.text().encode()
    return [] if same and all(map(_whole, vars(analysis).values())) else [Path(study.results, ".redo", "analysis")]


def _states_in(records: Path) -> dict[Run, str]:
    """The states that the table of records names; nothing where it is damaged."""
    try:
        with records.open(encoding="utf-8", newline="") as file:
            return {
                Run(int(row["seed"]), row["model"], row["task"], row["condition"]): row["state"]
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
    """Makes the markers of what is to be redone, each newer than that, and removes all others.

    Raises:
        WriteError: The folder of results may not be written to, or its disk is full.
    """
    markers = {
        redo_marker(study, run, state): study.record_path(run)
        for run, state in states.items()
        if state in ("stale", "corrupt") and not study.partial
    }
    markers |= {marker: Tables.of(study).records for marker in tables_marker(study, states)}
    markers |= {marker: Analysis.of(study).thresholds for marker in analysis_marker(study)}
    folder = Path(study.results, ".redo")
    with writing(folder):
        for old in folder.glob("*"):
            if old not in markers:
                old.unlink()
        for marker, outdated in markers.items():
            folder.mkdir(parents=True, exist_ok=True)
            # Snakemake disregards a newer file of the same content as before, so the content is ever another.
            marker.write_text(f"{time.time_ns()}\n")
            newer = max(time.time(), outdated.stat().st_mtime + 1)
            os.utime(marker, (newer, newer))


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
