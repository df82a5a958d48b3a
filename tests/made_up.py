"""Small studies of made-up records."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from analysis import made_up_evaluation, made_up_rounds
from configs import ROOT, changed

from wireheading.analysis.figures import FIGURES
from wireheading.analysis.figures.heldout import write_heldout_figures
from wireheading.analysis.figures.training import write_figures
from wireheading.analysis.pages.report import write_report
from wireheading.files import sha256_of
from wireheading.jobs import short_digest
from wireheading.records.record import make_record, write_record
from wireheading.records.transcripts import write_heldout
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import Analysis, Tables, heldout_path, jobs_folder

ITEMS = 40
PROVENANCE = {
    "written": "2026-01-01T00:00:00+00:00",
    "code": "made-up",
    **{"slot": 0, "slots": 9, "batch": "task", "chunk": 9, "threads": 1},
    **{"device": "none", "python": "3.13"},
}


def few_runs(folder: Path, **changes: Any) -> Study:
    """A study of 24 runs of 16 rounds."""
    settings = {"seeds": [1, 2], "rounds": 16, "evaluation": {"midway_rounds": [8], "midway_items": 10}} | changes
    return load_study(changed(results=str(folder / "results"), reports=str(folder / "reports"), **settings))


def write_runs(
    study: Study,
    inflation: Mapping[str, float] | None = None,
    diverged: Collection[Run] = (),
    runs: Collection[Run] | None = None,
    evaluated: Mapping[str, Any] | None = None,
    last: int | None = None,
    spread: Mapping[str, float] | None = None,
    said: str | None = None,
) -> None:
    """Writes the records of a study whose graders became more lenient by so much in each condition.

    Args:
        study: The study.
        inflation: By how much, for each condition; 0 for those that are not named.
        diverged: Runs that diverged.
        runs: The runs to write; all unless given.
        evaluated: What is put in the rows of the last evaluation.
        last: Rounds of the runs that diverged; half of all unless given.
        spread: By how much graders became more lenient to other tasks' answers, for each condition; 0 for the others.
        said: What every held-out response says; without it there are no transcripts of them.
    """
    for index, run in enumerate(study.runs()):
        if runs is not None and run not in runs:
            continue
        rng = np.random.default_rng([run.seed, index])
        others = [] if run in diverged else study.other_tasks(run.task)
        rounds = made_up_rounds(rng, study.rounds, study.conditions[run.condition])
        lenient = (inflation or {}).get(run.condition, 0.0)
        grades = run.condition != "control"
        for row in rounds:
            if not grades:
                row |= {"grade": None, "original_grade": None, "parse_status": "not_asked"}
        start = np.random.default_rng(0)
        half = study.rounds // 2
        evaluations = {0: made_up_evaluation(start, ITEMS), half: made_up_evaluation(rng, 10, 0.5, lenient / 2)}
        if run in diverged:
            rounds = rounds[: half if last is None else last]
            evaluations = {round_: rows for round_, rows in evaluations.items() if round_ <= len(rounds)}
        else:
            seen = made_up_evaluation(rng, ITEMS, 0.5, lenient)
            evaluations[study.rounds] = [{**row, **(evaluated or {})} for row in seen]
        more = (spread or {}).get(run.condition, 0.0)
        items, transcript = study.items_folder(run.task) / "heldout.jsonl", heldout_path(study.record_path(run))
        if said is not None:
            transcript.parent.mkdir(parents=True, exist_ok=True)
            texts = {"response": said, "grade_text": said, "base_grade_text": said}
            write_heldout(transcript, {at: [{**row, **texts} for row in rows] for at, rows in evaluations.items()})
        record = make_record(
            study,
            run,
            inputs={items.name: sha256_of(items)} if items.exists() else {},
            status="diverged" if run in diverged else "complete",
            problem="round 8: the loss or its gradient was not finite" if run in diverged else None,
            rows=rounds,
            evaluations=evaluations,
            transcripts={} if said is None else {transcript.name: sha256_of(transcript)},
            timing={"first_round": 0, "rounds": len(rounds), "seconds": 10.0, "evaluating_seconds": 1.0},
            provenance=PROVENANCE,
            transfer={other: (made_up_grades(other, 0.0), made_up_grades(other, more, rng)) for other in others},
        )
        write_record(study.record_path(run), record)


def made_up_grades(task: str, lenient: float, rng: np.random.Generator | None = None) -> list[dict[str, Any]]:
    """Grades of a task's fixed answers that never were, the base model's unless by a policy with luck of its own."""
    base = np.random.default_rng(len(task)).normal(0.4, 0.05, ITEMS)
    luck = np.zeros(ITEMS) if rng is None else rng.normal(0, 0.02, ITEMS)
    wrong = np.clip(base + lenient + luck, 0, 1).tolist()
    return [{"item": f"heldout-{index}", "gold_grade": 0.7, "wrong_grade": value} for index, value in enumerate(wrong)]


def write_pages(study: Study, report: Callable[[str], None], drawn: bool = True) -> Path:
    """Writes the report of a study whose analysis is there, with its figures or with empty ones; gives the report."""
    tables, analysis, folder = Tables.of(study), Analysis.of(study), Path(study.reports, "figures")
    if drawn:
        write_figures(study, tables, folder)
        write_heldout_figures(study, tables, analysis, folder)
        assert {path.stem for path in folder.iterdir()} == set(FIGURES)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FIGURES:
            (folder / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    captions = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "workflow" / "report").glob("*.rst")}
    path = Path(study.reports, "report.html")
    write_report(study, tables, analysis, captions, path, report)
    return path


def reseal(path: Path, old: bytes, new: bytes) -> None:
    """Replaces a part of a record and makes its checksum fit again."""
    data = path.read_bytes().replace(old, new)[: -(64 + len(b'"}}\n'))]
    path.write_bytes(data + hashlib.sha256(data).hexdigest().encode() + b'"}}\n')


def write_job(study: Study, runs: Collection[Run], rounds: int, **changes: Any) -> Path:
    """Writes what a job of this process tells that has done so many rounds of its runs."""
    told = {
        **{"name": "tiny · seed 42", "host": socket.gethostname(), "process": os.getpid(), "of": study.rounds},
        **{"at": rounds, "doing": "", "saved": None, "pace": 2.0, "left": 60.0, "means": {}},
        "runs": {str(run): {"digest": short_digest(study, run), "rounds": rounds} for run in runs},
    }
    folder = jobs_folder(Path(study.results))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{len([*folder.iterdir()])}.json"
    path.write_text(json.dumps(told | changes))
    return path
