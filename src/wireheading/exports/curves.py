"""Rounds and held-out means → curves in Trackio, on this machine and without an account, also while a study runs."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from wireheading.exports.common import ExportError, Report, tool
from wireheading.records.means import mean
from wireheading.records.record import ITEM_ARRAYS, ROUND_ARRAYS, RecordError, read_record
from wireheading.study.config import Run, Study
from wireheading.study.paths import checkpoint_folder

CURVES = ("reward", "score", "accuracy", "grade", "loss", "grad_norm")
"""What is drawn of each round."""

HELDOUT = ("score", "accuracy", "grade", "fixed_wrong_grade")
"""What is drawn of each held-out evaluation, as the mean over its items."""

Point = tuple[int, dict[str, float]]
"""Rounds done, and the values after them by the names of their curves."""


def export_curves(study: Study, path: Path, report: Report) -> None:
    """Writes a project for each model and task with a run for each seed and condition, grouped by condition.

    Runs under way are drawn as far as their checkpoints go. Called again, it adds what is new, and replaces runs whose
    settings have changed.

    Args:
        study: The study.
        path: Trackio's folder, made if it is not there.
        report: Told of every record that is invalid, and of the number of rounds that were added.

    Raises:
        ExportError: Trackio is not installed, or no run has a record or a checkpoint.
    """
    # Trackio takes its folder from the environment when it is imported.
    os.environ["TRACKIO_DIR"] = str(path.resolve())
    trackio = tool("trackio", "trackio")
    if path.resolve() != trackio.TRACKIO_DIR:
        raise ExportError(f"{path}: trackio already uses {trackio.TRACKIO_DIR} in this process; export in another one")
    runs = added = 0
    for run in study.runs():
        points = _points(study, run, report)
        if points:
            runs += 1
            added += _add(trackio, run, study.digest(run), points)
    if not runs:
        raise ExportError(
            f"{study.results}: holds no run of this study, so there is nothing to export; name its config with "
            "--configfile"
        )
    report(f"{path}: {added} points added to {runs} runs; look at them with: TRACKIO_DIR={path} trackio show")


def _add(trackio: Any, run: Run, digest: str, points: list[Point]) -> int:
    """Adds to a run what Trackio does not have of it yet, and returns the number of points."""
    project, name = f"{run.model}-{run.task}", f"{run.condition}-{run.seed}"
    for earlier in trackio.Api().runs(project) if trackio.SQLiteStorage.get_project_db_path(project).exists() else ():
        if earlier.name == name and earlier.config["digest"] != digest:
            earlier.delete()
    last = trackio.SQLiteStorage.get_max_step_for_run(project, name)
    new = [(step, values) for step, values in points if last is None or step > last]
    if not new:
        return 0
    config = {"seed": run.seed, "condition": run.condition, "digest": digest}
    settings = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    # It says of every run how to open the dashboard; the export says so once.
    with redirect_stdout(io.StringIO()):
        live = trackio.init(project, name, group=run.condition, resume="allow", config=config, **settings)
        for step, values in new:
            live.log(values, step=step)
        live.finish()
    return len(new)


def _points(study: Study, run: Run, report: Report) -> list[Point]:
    """All points of a run, from its record or from the rounds of its checkpoint."""
    path, digest = study.record_path(run), study.digest(run)
    try:
        record = read_record(path, digest)
    except RecordError as error:
        if error.state != "missing":
            report(str(error))
        entries = _checkpointed(checkpoint_folder(path), digest)
    else:
        entries = _recorded(record) if "imported" not in record else iter(())
    points: dict[int, dict[str, float]] = {}
    for step, values in entries:
        points.setdefault(step, {}).update({name: value for name, value in values.items() if value is not None})
    return sorted(points.items())


def _recorded(record: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float | None]]]:
    rounds = {column: record[array] for array, column in ROUND_ARRAYS.items() if column in CURVES}
    for index in range(record["rounds"]):
        yield index + 1, {name: values[index] for name, values in rounds.items()}
    for seen in record["evaluations"]:
        yield (
            seen["round"],
            {f"heldout/{column}": mean(seen[array]) for array, column in ITEM_ARRAYS.items() if column in HELDOUT},
        )


def _checkpointed(folder: Path, digest: str) -> Iterator[tuple[int, dict[str, float | None]]]:
    """What the checkpoints of these settings hold: the line that is being written is left for the next time."""
    for log in folder.glob(f"{digest[:16]}-*/rounds.jsonl"):
        done = 0
        for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            entry = json.loads(line)
            if "evaluated" in entry:
                rows = entry["items"]
                yield entry["evaluated"], {f"heldout/{name}": mean([row[name] for row in rows]) for name in HELDOUT}
            else:
                done += 1
                yield done, {name: entry[name] for name in CURVES}
