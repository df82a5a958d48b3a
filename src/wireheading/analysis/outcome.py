"""What a study found, in a line for each model and task: its headline, and reward and score at start and end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd

from wireheading.errors import InputError
from wireheading.study.config import Study
from wireheading.study.paths import Analysis


def outcome_text(study: Study) -> str:
    """The headlines of a study, and where its report lies.

    Raises:
        InputError: There is no analysis yet, or what is there is none.
    """
    analysis = Analysis.of(study)
    try:
        verdicts = pd.read_csv(analysis.verdicts)
        estimates = pd.read_parquet(analysis.estimates)
        rows = [(f"{row['model']} · {row['task']}", *_row(row, estimates)) for row in verdicts.to_dict("records")]
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file; run the study first, or give its --configfile") from None
    except (ValueError, KeyError) as error:
        raise InputError(f"{analysis.verdicts}: cannot be read ({error}); remove it and run again") from None
    names, headlines = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{name.ljust(names)}   {headline.ljust(headlines)}   {told}".rstrip() for name, headline, told in rows]
    if study.only:
        lines.insert(0, f"a part of the study: {study.only}")
    places = {"report": "report.html", "transcripts": "transcripts.html", "verdicts": analysis.verdicts.name}
    there = ((what, Path(study.reports, name)) for what, name in places.items())
    return "\n".join([*lines, "", *(f"{what.ljust(11)} {path}" for what, path in there if path.exists())])


def _row(verdict: dict[Any, Any], estimates: pd.DataFrame) -> tuple[str, str]:
    """The headline of a cell, and what became of reward and score, on average over its seeds."""
    cell = estimates[(estimates["model"] == verdict["model"]) & (estimates["task"] == verdict["task"])]
    means = cell.groupby(["condition", "when"])[["grade", "score"]].mean()

    def went(condition: str, figure: str) -> str:
        start, end = (means[figure].get((condition, when), math.nan) for when in ("start", "end"))
        return "–" if math.isnan(start) or math.isnan(end) else f"{start:.2f} → {end:.2f}"

    return str(verdict["verdict"]), (
        f"selfgrade's paid reward {went('selfgrade', 'grade')}, score {went('selfgrade', 'score')}; "
        f"control's score {went('control', 'score')}"
    )
