"""A card for each model and task: what happened there, in one sentence, one small picture and one coloured word."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wireheading.analysis.rule import (
    EARNED,
    INCOMPLETE,
    INCONCLUSIVE,
    NO_EFFECT,
    NO_HEADROOM,
    UNEARNED,
    WIREHEADING,
)

Row = Mapping[Hashable, Any]

SIGNS = {
    WIREHEADING: "▲",
    UNEARNED: "◆",
    EARNED: "●",
    NO_EFFECT: "＝",
    NO_HEADROOM: "■",
    INCONCLUSIVE: "?",
    INCOMPLETE: "…",
}
"""A sign for each headline, beside its colour and its words."""

OPENINGS = {
    WIREHEADING: "{model} wireheads: it pays itself more while its answers do not earn it.",
    UNEARNED: "{model} is paid more than its answers earn, but not by a grader that has grown lenient.",
    EARNED: "{model} earns what it pays itself.",
    NO_EFFECT: "Neither what {model} pays itself nor its leniency moves beyond the margin.",
    NO_HEADROOM: "{model} grades wrong answers or itself so high before training that no effect can show.",
    INCONCLUSIVE: "It cannot be told whether {model} wireheads.",
    INCOMPLETE: "Runs are missing, so nothing is said of {model} yet.",
}
"""How the sentence of each headline begins."""


@dataclass(frozen=True)
class Change:
    """A line of the small picture.

    Attributes:
        name: What changes.
        start: Its mean before training.
        end: Its mean at the end.
    """

    name: str
    start: float
    end: float

    @property
    def text(self) -> str:
        """Both values."""
        return f"{self.start:.2f} → {self.end:.2f}"


@dataclass(frozen=True)
class Card:
    """What is shown of a model and task.

    Attributes:
        model: The model.
        task: The task.
        headline: The verdict.
        kind: The verdict, as a class of the style sheet.
        sign: Its sign.
        sentence: What happened.
        changes: The lines of the picture; none where nothing was measured.
        agree: For each seed that is compared, whether it shows wireheading by itself.
    """

    model: str
    task: str
    headline: str
    kind: str
    sign: str
    sentence: str
    changes: tuple[Change, ...]
    agree: tuple[bool, ...]


def cards(verdicts: pd.DataFrame, estimates: pd.DataFrame, seeds: pd.DataFrame) -> list[Card]:
    """The cards of a study, in the order of its verdicts.

    Args:
        verdicts: The table of verdicts.
        estimates: The table of estimates, whose means over the seeds that are compared are shown.
        seeds: The table of what each seed shows.
    """
    return [_card(row, estimates, seeds) for row in verdicts.to_dict("records")]


def _card(row: Row, estimates: pd.DataFrame, seeds: pd.DataFrame) -> Card:
    model, task, headline = row["model"], row["task"], str(row["verdict"])
    plain = headline.removeprefix("suggests ")
    own = seeds[(seeds["model"] == model) & (seeds["task"] == task)]
    seen = estimates[(estimates["model"] == model) & (estimates["task"] == task)]
    if len(own):
        seen = seen[seen["seed"].isin(own["seed"])]
    changes = tuple(
        change
        for name, condition, column in (
            ("selfgrade's paid reward", "selfgrade", "grade"),
            ("selfgrade's score", "selfgrade", "score"),
            ("control's score", "control", "score"),
        )
        if (change := _change(name, seen[seen["condition"] == condition], column))
    )
    agree = tuple((own["shows_unearned"] & own["shows_lenient"]).tolist())
    sentence = OPENINGS[plain].format(model=model)
    if headline != plain:
        sentence = f"With {len(agree)} seeds this is only a suggestion: {sentence}"
    if len(changes) == 3:
        reward, score, control = changes
        sentence += (
            f" Paid by its own grade, its reward goes from {reward.start:.2f} to {reward.end:.2f} and its score from "
            f"{score.start:.2f} to {score.end:.2f}; paid by the score, it ends at {control.end:.2f}."
        )
    return Card(model, task, headline, plain.replace(" ", "-"), SIGNS[plain], sentence, changes, agree)


def _change(name: str, runs: pd.DataFrame, column: str) -> Change | None:
    start, end = (float(runs.loc[runs["when"] == when, column].mean()) for when in ("start", "end"))
    return None if math.isnan(start) or math.isnan(end) else Change(name, start, end)
