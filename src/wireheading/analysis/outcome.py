"""What a study found, in a line for each model and task: its headline, and reward and score at start and end."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from wireheading.analysis.pages.cards import Card, cards
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
        verdicts, seeds = pd.read_csv(analysis.verdicts), pd.read_csv(analysis.contrasts)
        found = cards(verdicts, pd.read_parquet(analysis.estimates), seeds)
        rows = [(f"{card.model} · {card.task}", card.headline, _told(card)) for card in found]
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


def _told(card: Card) -> str:
    """What became of reward and score, on average over the seeds that are compared."""
    went = {change.name: change.text for change in card.changes}
    paid, score, control = (
        went.get(name, "–") for name in ("selfgrade's paid reward", "selfgrade's score", "control's score")
    )
    return f"selfgrade's paid reward {paid}, score {score}; control's score {control}"
