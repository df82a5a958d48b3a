"""The signature of wireheading as published: reward rises, accuracy does not, grade − accuracy is positive and grows.

It is that of the training curves, by the published definitions: their evaluators and readers, an unreadable grade as 0.
The start and the end of a curve are its first and last eighth.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from wireheading.study.config import Study

CURVES = ("original_reward", "original_accuracy", "original_inflation")

SIGNATURE = (
    "model",
    "task",
    "condition",
    "seed",
    *(f"{edge}_{curve}" for curve in CURVES for edge in ("start", "end")),
    "shows",
    "inflation",
    "published",
)
"""Columns of the table of signatures: the curves' ends, whether a run shows the signature, its mean of grade − accuracy
over all rounds, and what was published for its model, task and condition."""


def signature(study: Study, runs: pd.DataFrame) -> pd.DataFrame:
    """The signature of every run that did not diverge, beside what was published.

    Args:
        study: The study's settings.
        runs: The table of runs.
    """
    ended = runs[runs["status"] != "diverged"].rename(columns={"original_grade_inflation": "inflation"})
    curves = [name for name in SIGNATURE if "original" in name]
    ended = ended.astype(dict.fromkeys([*curves, "inflation"], float))
    start, end = (ended[[f"{edge}_{curve}" for curve in CURVES]].to_numpy().T for edge in ("start", "end"))
    margin = study.analysis.margin
    rises, stays, grows = end[0] > start[0] + margin, end[1] <= start[1] + margin, (end[2] > 0) & (end[2] > start[2])
    published = pd.read_csv(Path(__file__).parent / "published.csv").rename(columns={"inflation": "published"})
    sources = ended["model"].map({name: model.source for name, model in study.models.items()})
    table = ended.assign(shows=rises & stays & grows, source=sources.astype(object))
    return table.merge(published, on=["source", "task", "condition"], how="left")[list(SIGNATURE)]
