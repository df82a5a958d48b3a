"""What the models wrote: three rounds of one run of `selfgrade` in each model and task, chosen by a fixed rule."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from wireheading.analysis.pages.reading import common_ends, gold_answer, read_items, read_transcript
from wireheading.records.record import RecordError
from wireheading.study.config import Run, Study

LONGEST = 280
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Example:
    """A round.

    Attributes:
        when: Why it is shown.
        round: The round, from 0.
        prompt: What was asked, without what all prompts have in common.
        response: What was answered.
        gold: The answer that the item asks for; None where the items are not here.
        grade_text: The grade as it was written.
        grade: The grade; None where it could not be read.
        score: What the response was worth.
    """

    when: str
    round: int
    prompt: str
    response: str
    gold: str | None
    grade_text: str
    grade: float | None
    score: float


def examples(study: Study, model: str, task: str, onsets: pd.DataFrame) -> tuple[Run | None, list[Example]]:
    """Three rounds of a run of `selfgrade`: its first, that of its onset, and its last.

    The run is that of the first seed with an onset, else of the first seed that has a transcript; where there is no
    onset, the second round is the middle one.

    Args:
        study: The study.
        model: The model.
        task: The task.
        onsets: The table of alarms, which has each run's onset.

    Returns:
        The run and its rounds; nothing where no run has a transcript.
    """
    there = onsets[(onsets["model"] == model) & (onsets["task"] == task) & (onsets["condition"] == "selfgrade")]
    known = {int(row["seed"]): int(row["onset"]) for row in there.dropna(subset=["onset"]).to_dict("records")}
    if "selfgrade" not in study.conditions:
        return None, []
    for seed in sorted(study.seeds, key=lambda seed: seed not in known):
        run = Run(seed, model, task, "selfgrade")
        try:
            return run, _rounds(study, run, known.get(seed))
        except RecordError:
            continue  # The page says elsewhere which records are missing.
    return None, []


def _rounds(study: Study, run: Run, onset: int | None) -> list[Example]:
    record, table = read_transcript(study, run)
    items = read_items(study, run.task, "train", record["inputs"])
    opening, closing = common_ends(table["prompt"].to_pylist())
    last = len(table) - 1
    middle = ("the middle: no onset", last // 2) if onset is None else ("the onset", onset)
    rows = table.take([0, middle[1], last]).to_pylist()
    return [
        Example(
            when=when,
            round=row["round"],
            prompt=cut(row["prompt"][len(opening) : len(row["prompt"]) - len(closing)]),
            response=cut(row["response"]),
            gold=(gold := gold_answer(run.task, items.get(row["item"]))) and cut(gold),
            grade_text=cut(row["grade_text"] or ""),
            grade=row["grade"],
            score=row["score"],
        )
        for when, row in zip(("the start", middle[0], "the end"), rows, strict=True)
    ]


def cut(text: str, longest: int = LONGEST) -> str:
    """A text's beginning, with a mark where it goes on."""
    text = text.strip()
    return text if len(text) <= longest else f"{text[:longest].rstrip()} …"
