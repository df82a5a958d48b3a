"""Whether the tables and the analysis are up to date; the workflow asks while it is parsed, so little is imported."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from wireheading.records.record import State, seal_of
from wireheading.study.config import Run, Study
from wireheading.study.paths import Analysis, Tables


def tables_are_current(study: Study, states: Mapping[Run, State]) -> bool:
    """Whether the tables are intact and come from the present records, and no more records are to be made.

    The table of records lists the runs of the tables, which of them had a valid record, and its SHA-256.
    """
    tables = Tables.of(study)
    if not study.partial and set(states.values()) != {"valid"}:
        return False
    if not all(_intact(path) for path in vars(tables).values()):
        return False
    then = _states_in(tables.records)
    return list(then) == study.runs() and all(
        then[run] == ("valid", seal_of(study.record_path(run)))
        if state == "valid"
        else then[run][0] == ("missing" if state == "missing" else "unusable")
        for run, state in states.items()
    )


def analysis_is_current(study: Study) -> bool:
    """Whether the results of the analysis are intact and have these thresholds."""
    analysis = Analysis.of(study)
    return all(_intact(path) for path in vars(analysis).values()) and (
        analysis.thresholds.read_bytes() == study.analysis.text().encode()
    )


def replaced_report(study: Study) -> list[str]:
    """A line for each way in which the report that lies in a study's folder is another than the one to be made.

    It has thresholds of its own, or runs that this study does not have.
    """
    analysis = Analysis.of(study)
    if not analysis.thresholds.exists() or not analysis.signature.exists():
        return []
    told = []
    if analysis.thresholds.read_bytes() != study.analysis.text().encode():
        told.append("has other thresholds")
    try:
        with analysis.signature.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        there = {Run(int(row["seed"]), row["model"], row["task"], row["condition"]) for row in rows}
    except (csv.Error, ValueError, KeyError, TypeError):
        return []  # It is damaged, and made again for that reason.
    if others := sorted(there - set(study.runs())):
        told.append(f"has {len(others)} runs that this study does not have, such as {others[0]}")
    return [
        f"{study.reports}: the report there {what} and is replaced; set `reports` to another folder to keep it"
        for what in told
    ]


def _states_in(records: Path) -> dict[Run, tuple[str, str]]:
    """The states in the table of records, with the SHA-256 of valid records; empty if it is damaged."""
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


def _intact(path: Path) -> bool:
    """Whether a file exists and has both its ends: it is neither truncated nor some other file."""
    if not path.exists():
        return False
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
