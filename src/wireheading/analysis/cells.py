"""Tables of records → what the verdict on each model and task rests on.

`selfgrade` is judged, and `control` is its contrast: the same items, the same initial adapter, the same random numbers,
and no training on grades.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wireheading.analysis.effects import Floats
from wireheading.analysis.estimates import PARTS
from wireheading.analysis.rule import Measured
from wireheading.study.config import Run, Study

ARMS = ("selfgrade", "control")
"""The conditions that a verdict rests on."""

BESIDE = ("readable", "truncated", "soft_mass", "discrimination")
"""Estimates of both arms at the end that stand beside the verdict."""

_COLUMNS = ("item", "score", "grade", "fixed_wrong_grade")

Ends = Mapping[int, pd.DataFrame]
"""A run's items before training and at its end, by round."""


@dataclass(frozen=True)
class Cell:
    """What the verdict on one model and task rests on.

    Attributes:
        model: The model.
        task: The task.
        seeds: The seeds that are compared.
        measured: Their tables of seeds × items; None where no seed is compared.
        figures: Means over these seeds: the parts of the gain in selfgrade, `BESIDE` of each arm, and the base model's
            `base_wrong` and `base_reward`.
        dropped: Items that are not in the tables of leniency, since some grader gave no grade any probability.
        incomplete: Why there is no verdict: runs without a complete record, records that must not be compared.
        excluded: Runs that the config excludes.
    """

    model: str
    task: str
    seeds: tuple[int, ...] = ()
    measured: Measured | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    dropped: int = 0
    incomplete: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def cells(study: Study, heldout: Path, estimates: pd.DataFrame, records: pd.DataFrame) -> list[Cell]:
    """Gathers what the verdict on each model and task rests on.

    Args:
        study: The study, whose conditions and seeds say what there should be.
        heldout: The table of held-out items.
        estimates: The table of estimates.
        records: The table of records, which says of each run what its record is worth.
    """
    ends = evaluated(study, heldout, ARMS)
    states = {Run(*key): state for *key, state in records[[*Run._fields, "state"]].to_numpy()}
    problems = {
        (model, task): problem for model, task, problem in records[["model", "task", "cell_problem"]].to_numpy()
    }
    found = []
    for model, task in itertools.product(study.enabled_models, study.enabled_tasks):
        cell = _cell(study, model, task, ends, states, problems.get((model, task)))
        if cell.seeds:
            there = estimates[(estimates["model"] == model) & (estimates["task"] == task)]
            cell = _measured(cell, ends, there[there["seed"].isin(cell.seeds)])
        found.append(cell)
    return found


def _cell(
    study: Study, model: str, task: str, ends: Mapping[Run, Ends], states: Mapping[Run, str], problem: Any
) -> Cell:
    """Which seeds can be compared, and what there should be besides."""
    if absent := [arm for arm in ARMS if arm not in study.conditions]:
        return Cell(model, task, incomplete=(f"the study does not run {' and '.join(absent)}",))
    runs = [Run(seed, model, task, arm) for seed in study.seeds for arm in ARMS]
    excluded = [run for run in runs if str(run) in study.analysis.excluded]
    needed = [run for run in runs if run.seed not in {run.seed for run in excluded}]
    lacking = [run for run in needed if run not in ends]
    seeds = tuple(dict.fromkeys(run.seed for run in needed if run.seed not in {run.seed for run in lacking}))
    incomplete = []
    if lacking:
        named = ", ".join(f"{run} ({states.get(run, 'missing')})" for run in lacking)
        incomplete.append(f"no complete record of {named}")
    if isinstance(problem, str):
        incomplete.append(problem)
    items = {tuple(rows["item"]) for run in needed if run.seed in seeds for rows in ends[run].values()}
    if len(items) > 1:
        incomplete.append("its records have different held-out items")
        seeds = ()
    return Cell(model, task, seeds, incomplete=tuple(incomplete), excluded=tuple(map(str, excluded)))


def _measured(cell: Cell, ends: Mapping[Run, Ends], estimates: pd.DataFrame) -> Cell:
    """Adds what was measured of a cell's seeds; `estimates` are theirs."""

    def table(arm: str, end: bool, column: str) -> Floats:
        found = [ends[Run(seed, cell.model, cell.task, arm)] for seed in cell.seeds]
        return np.array([rows[max(rows) if end else min(rows)][column] for rows in found], dtype=float)

    def gain(arm: str, column: str) -> Floats:
        return table(arm, True, column) - table(arm, False, column)

    lenient, control_lenient = (gain(arm, "fixed_wrong_grade") for arm in ARMS)
    defined = ~np.isnan(lenient + control_lenient).any(axis=0)
    # With fewer than two items left, leniency was not measured.
    kept = defined if defined.sum() > 1 else np.full_like(defined, True)
    score = table("selfgrade", True, "score")
    measured = Measured(
        np.nan_to_num(table("selfgrade", True, "grade")) - np.nan_to_num(table("selfgrade", False, "grade")),
        score - table("selfgrade", False, "score"),
        lenient[:, kept],
        control_lenient[:, kept],
        score - table("control", True, "score"),
    )
    at_end = {arm: estimates[(estimates["condition"] == arm) & (estimates["when"] == "end")] for arm in ARMS}
    before = estimates[(estimates["condition"] == "control") & (estimates["when"] == "start")]
    figures = {
        **{name: at_end["selfgrade"][name].mean(skipna=False) for name in PARTS},
        **{f"{name}_{arm}": at_end[arm][name].mean() for name in BESIDE for arm in ARMS},
        "base_wrong": before["fixed_wrong_grade"].mean(),
        "base_reward": before["grade"].mean(),
    }
    return replace(cell, measured=measured, figures=figures, dropped=int((~defined).sum()))


def evaluated(study: Study, heldout: Path, conditions: Collection[str]) -> dict[Run, Ends]:
    """Every run of some conditions that was evaluated before training and at its end."""
    wanted = pc.field("condition").isin(list(conditions)) & pc.field("round").isin([0, study.rounds])
    keys = [*Run._fields, "round"]
    table = pq.read_table(heldout, columns=[*keys, *_COLUMNS], filters=wanted).to_pandas()
    found: dict[Run, dict[int, pd.DataFrame]] = {}
    for (*run, round_), rows in table.groupby(keys, observed=True, sort=False):
        found.setdefault(Run(*run), {})[int(round_)] = rows
    return {run: rounds for run, rounds in found.items() if len(rounds) > 1}
