"""Made-up runs with transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from analysis import made_up_evaluation
from configs import changed
from made_up import PROVENANCE

from wireheading.files import sha256_of
from wireheading.records.record import make_record, write_record
from wireheading.records.transcripts import SCHEMA, write_transcript
from wireheading.study.conditions import CONDITIONS
from wireheading.study.config import Run, Study, load_study
from wireheading.study.paths import transcript_path

HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!-- <script>",
    "<b>bold</b> &lt;i&gt; &amp;",
    "]]> ${content} $content {{content}} \\u003c",
    "line\nline\r\n\ttab \u2028 \u2029 end",
    "\x00\x01\x1b[31mred",
    "\u202eright to left\u202c א ب 🙂 e\u0301 \ufffe",
    "",
    "   ",
    "x" * 40_000,
    "javascript:alert(1)\"'`",
]
"""Texts that a model might write and a page might stumble over."""


def row(round_: int, condition: str, **changes: Any) -> dict[str, Any]:
    graded = CONDITIONS[condition].grader != "none"
    values = {
        **dict.fromkeys(SCHEMA.names, 0.0),
        **{"round": round_, "item": f"item-{round_}", "prompt": f"Prompt {round_}?", "response": f"Answer {round_}."},
        **{"response_tokens": [1], "truncated": False, "accuracy": 0, "score": 0.5, "reward": 0.5},
        **{"grade_text": "1" if graded else None, "grade_tokens": [1] if graded else None},
        **{"grade": 1.0 if graded else None, "parse_status": "readable" if graded else "not_asked"},
    }
    return values | changes


def write_run(study: Study, run: Run, rows: Sequence[Mapping[str, Any]], **changes: Any) -> None:
    path = study.record_path(run)
    transcript = transcript_path(path)
    pays = study.conditions[run.condition].pays
    rows = [{**row, "reward": pays(row["round"], row["score"], row["grade"], audited=False, coin=0.0)} for row in rows]
    write_transcript(transcript, rows)
    sums = {transcript.name: sha256_of(transcript)}
    timing = {"first_round": 0, "rounds": len(rows), "seconds": 1.0, "evaluating_seconds": 0.0}
    held_out = made_up_evaluation(np.random.default_rng(0), 5)
    evaluations = {0: held_out, study.rounds: held_out}
    record = make_record(study, run, {}, "complete", None, rows, evaluations, sums, timing, PROVENANCE)
    write_record(path, record | changes)


def study_in(folder: Path, **changes: Any) -> Study:
    settings = {"rounds": 12, "seeds": [1], "conditions": ["control", "selfgrade"], "evaluation": {"midway_rounds": []}}
    return load_study(changed(results=str(folder / "results"), **(settings | changes)))
