"""The report: one page that says first what happened, then why that is believed, and fetches nothing."""

from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import pandas as pd

from wireheading.analysis.costs import logprob_gaps
from wireheading.analysis.figures import FIGURES
from wireheading.analysis.pages import statistics
from wireheading.analysis.pages.cards import cards
from wireheading.analysis.pages.examples import examples
from wireheading.analysis.pages.templates import templates
from wireheading.files import code_digest, replacing
from wireheading.study.config import Study
from wireheading.study.oversight import oversight_figures
from wireheading.study.paths import Analysis, Tables
from wireheading.study.thresholds import departures

RULE = Path("docs", "verdict.md")
"""The verdict's page, in a copy of the repository."""


def write_report(
    study: Study,
    tables: Tables,
    analysis: Analysis,
    captions: Mapping[str, str],
    path: Path,
    report: Callable[[str], None],
) -> None:
    """Writes the report.

    Args:
        study: The study's settings.
        tables: The tables of records.
        analysis: The results of the analysis.
        captions: The figures' captions by name, in which double backquotes enclose code.
        path: The page; figures and transcripts lie beside it.
        report: Is told of every threshold that is not what it was when the study started.
    """
    verdicts, records = pd.read_csv(analysis.verdicts), pd.read_csv(tables.records)
    signatures, onsets = pd.read_csv(analysis.signature), pd.read_csv(analysis.onsets)
    alarms, costs = pd.read_csv(analysis.alarms), pd.read_csv(analysis.costs)
    exploratory = departures(study)
    for line in exploratory:
        report(f"exploratory: {line}")
    shown = cards(verdicts, pd.read_parquet(analysis.estimates), pd.read_csv(analysis.contrasts))
    lacking, more = statistics.lacking_table(records)
    page = templates().get_template("report.html.j2").render(
        style=resources.files(__package__).joinpath("page", "report.css").read_text(encoding="utf-8"),
        study=study,
        exploratory=exploratory,
        cards=[(card, *examples(study, card.model, card.task, alarms)) for card in shown],
        pictures={name: _picture(path.parent / "figures" / f"{name}.svg") for name in FIGURES},
        figures={name: (category, title, _caption(captions[name])) for name, (category, title) in FIGURES.items()},
        published=statistics.published_table(signatures),
        verdicts=statistics.verdict_table(verdicts),
        reasons=verdicts[["model", "task", "why"]].to_dict("records"),
        signatures=statistics.signature_table(signatures),
        count=len(records),
        states=statistics.states_line(records),
        lacking=lacking,
        more=more,
        sensitivity=statistics.sensitivity_table(verdicts),
        models=statistics.models_lines(pd.read_csv(analysis.models)),
        calibration=statistics.calibration_table(pd.read_csv(analysis.calibration)),
        onsets=statistics.onset_table(onsets),
        definitions=statistics.definitions_table(pd.read_csv(analysis.definitions)),
        costs=statistics.cost_table(costs),
        hours=statistics.cost_line(costs),
        gaps=statistics.gap_table(logprob_gaps(pd.read_parquet(tables.runs))),
        environment=statistics.environment_lines(records, code_digest()),
        thresholds=list(study.analysis.model_dump(mode="json").items()),
        rule=os.path.relpath(RULE, path.parent) if RULE.exists() else None,
        oversight=bool(oversight_figures(study)),
    )  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _picture(path: Path) -> str:
    """A figure as an address that holds it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _caption(text: str) -> str:
    """A caption as HTML."""
    return re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text.strip()))
