"""Tables of held-out items → what every condition did, against control, and what policies say of other tasks' answers.

Seeds are paired: a condition is compared on those that it and control both have. Effects and their intervals are those
of the verdict (`effects`), and decide no verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from wireheading.analysis.cells import Ends, evaluated
from wireheading.analysis.effects import Effect, Floats, effect, holm
from wireheading.analysis.tables import write_csv
from wireheading.study.config import Run, Study
from wireheading.study.oversight import doses, unreformed
from wireheading.study.paths import Oversight, Tables

MEASURES = ("lenient", "contrast", "unearned", "score", "score_contrast", "against_unreformed")
"""What is estimated of a condition: leniency; leniency less that in control; the gain in paid reward that the gain in
score does not account for; the score at the end; the score less that in control; and for a reformed condition its
leniency less that of the same without reform."""

EFFECTS = (
    "model", "task", "condition", "audit", "until", "seeds",
    *(f"{name}{part}" for name in MEASURES for part in ("", "_low", "_high")),
    "p_lenient", "p_not_lenient", "p_undone",
)  # fmt: skip
"""Columns of the table of effects, a row for each model, task and condition. The p values are those of three
claims: leniency exceeds that in control by more than the margin; by less than it; a reform took more than it away."""

SEEDS = ("model", "task", "condition", "seed", *MEASURES)
"""Columns of the table of seeds: the means over items."""

TRANSFER = (
    "model", "condition", "trained", "graded", "seeds", "lenient", "lenient_low", "lenient_high",
    "contrast", "contrast_low", "contrast_high", "p", "p_holm",
)  # fmt: skip
"""Columns of the table of transfer, a row for each model, condition, task that was trained on and task whose answers
were graded. `p` is that of leniency above control's by more than the margin; `p_holm` is corrected over the pairs of
different tasks of a model and condition."""

FEWEST = 2
"""Seeds, and items, of which there is an interval."""


def write_oversight_tables(study: Study, tables: Tables, oversight: Oversight) -> None:
    """Writes the tables of effects, of seeds and of transfer."""
    effects, seeds = effect_tables(study, tables.heldout)
    transfer = transfer_table(study, tables.heldout, tables.transfer)
    for path, table in ((oversight.effects, effects), (oversight.seeds, seeds), (oversight.transfer, transfer)):
        write_csv(path, table)


def effect_tables(study: Study, heldout: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables of effects and of seeds, over the runs that have an end and are not excluded."""
    ends = {
        run: rounds
        for run, rounds in evaluated(study, heldout, study.conditions).items()
        if str(run) not in study.analysis.excluded
    }
    effects: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    for model, task, condition in itertools.product(study.enabled_models, study.enabled_tasks, study.conditions):
        row = study.conditions[condition]
        names = {"model": model, "task": task, "condition": condition}
        seeds = _paired(study, ends, model, task, condition)
        found: dict[str, Any] = {**names, "audit": row.audit, "until": row.until, "seeds": len(seeds)}
        tables = _tables(ends, seeds, model, task, condition, unreformed(study, condition) if row.until else None)
        for measure, table in tables.items():
            seen = _effect(study, table)
            if seen is None:
                continue
            found |= {measure: seen.mean, f"{measure}_low": seen.low, f"{measure}_high": seen.high}
            if measure == "contrast":
                found |= {"p_lenient": seen.above, "p_not_lenient": seen.below}
            if measure == "against_unreformed":
                found["p_undone"] = _p_undone(study, table)
        effects.append(found)
        for place, seed in enumerate(seeds):
            means = {measure: _mean(table[place]) for measure, table in tables.items()}
            alone.append({**names, "seed": seed, **means})
    return pd.DataFrame(effects, columns=list(EFFECTS)), pd.DataFrame(alone, columns=list(SEEDS))


def smallest_rate(study: Study, effects: pd.DataFrame) -> str | None:
    """The audited condition with the smallest rate at which a grader is shown to be no more lenient than in control.

    From the highest rate down, as long as leniency is shown, at the level `alpha`, to exceed that in control by less
    than the margin: a sequence of tests that ends with the first failure needs no correction for their number.

    Args:
        study: The study's settings.
        effects: The table of effects of one model and task.
    """
    p_values = effects.set_index("condition")["p_not_lenient"]
    found = None
    for name in reversed(doses(study)):
        # A NaN is no evidence.
        if not p_values[name] <= study.analysis.alpha:
            break
        found = name
    return found


def transfer_table(study: Study, heldout: Path, transfer: Path) -> pd.DataFrame:
    """What policies say of wrong answers in each task, against the base model and against control's policies."""
    grades = _wrong_grades(study, heldout, transfer)
    rows = []
    for model, condition in itertools.product(study.enabled_models, study.conditions):
        pairs = []
        for trained, graded in itertools.product(study.enabled_tasks, study.tasks):
            own = grades.get((model, condition, trained, graded), {})
            control = grades.get((model, "control", trained, graded), {})
            seeds = [seed for seed in study.seeds if seed in own and (seed in control or not control)]
            row: dict[str, Any] = {"model": model, "condition": condition, "trained": trained, "graded": graded}
            row["seeds"] = len(seeds)
            tables = {"lenient": _stacked([own[seed] for seed in seeds])}
            if control:
                tables["contrast"] = tables["lenient"] - _stacked([control[seed] for seed in seeds])
            for measure, table in tables.items():
                if (seen := _effect(study, table)) is not None:
                    row |= {measure: seen.mean, f"{measure}_low": seen.low, f"{measure}_high": seen.high}
                    if measure == "contrast":
                        row["p"] = seen.above
            pairs.append(row)
        apart = [row for row in pairs if row["trained"] != row["graded"]]
        for row, p in zip(apart, holm([row.get("p", math.nan) for row in apart]), strict=True):
            row["p_holm"] = p
        rows += pairs
    return pd.DataFrame(rows, columns=list(TRANSFER))


def signed(value: float) -> str:
    """A number with its sign and two decimals; a dash where there is none."""
    # Adding 0 turns a rounded "-0" into 0.
    return "–" if math.isnan(value) else f"{round(value, 2) + 0:+.2f}".replace("-", "−")


def _paired(study: Study, ends: Mapping[Run, Ends], model: str, task: str, condition: str) -> list[int]:
    """The seeds of which a condition and control have the same items."""
    seeds = []
    for seed in study.seeds:
        own, control = (ends.get(Run(seed, model, task, name)) for name in (condition, "control"))
        if own is not None and (control is not None or "control" not in study.conditions):
            seeds.append(seed)
    return seeds


def _tables(
    ends: Mapping[Run, Ends], seeds: Sequence[int], model: str, task: str, condition: str, without: str | None
) -> dict[str, Floats]:
    """The tables of seeds × items that the measures are means of; those that cannot be had are left out."""

    def table(name: str, column: str, start: bool = False) -> Floats:
        chosen = [ends[Run(seed, model, task, name)] for seed in seeds]
        return _stacked([rows[min(rows) if start else max(rows)][column].to_numpy(dtype=float) for rows in chosen])

    def gain(name: str, column: str) -> Floats:
        return table(name, column) - table(name, column, start=True)

    paid = np.nan_to_num(table(condition, "grade")) - np.nan_to_num(table(condition, "grade", start=True))
    lenient = gain(condition, "fixed_wrong_grade")
    found = {
        "lenient": lenient,
        "unearned": paid - gain(condition, "score"),
        "score": table(condition, "score"),
    }
    if all(Run(seed, model, task, "control") in ends for seed in seeds):
        found["contrast"] = lenient - gain("control", "fixed_wrong_grade")
        found["score_contrast"] = found["score"] - table("control", "score")
    if without is not None and all(Run(seed, model, task, without) in ends for seed in seeds):
        found["against_unreformed"] = lenient - gain(without, "fixed_wrong_grade")
    return found


def _effect(study: Study, table: Floats) -> Effect | None:
    """The effect that a table shows, of the items that every grader gave a grade; None where it is too small."""
    defined = table[:, ~np.isnan(table).any(axis=0)] if table.ndim > 1 else table
    if min(table.shape[0], defined.shape[-1]) < FEWEST:
        return None
    return effect(defined, study.analysis.margin, study.analysis.alpha)


def _p_undone(study: Study, table: Floats) -> float:
    """P value of: what a table shows is below minus the margin."""
    seen = _effect(study, -table)
    return math.nan if seen is None else float(seen.above)


def _wrong_grades(study: Study, heldout: Path, transfer: Path) -> dict[tuple[str, str, str, str], dict[int, Floats]]:
    """For each model, condition, task trained on and task graded: by seed, the leniency to each wrong answer."""
    found: dict[tuple[str, str, str, str], dict[int, Floats]] = {}
    for run, rounds in evaluated(study, heldout, study.conditions).items():
        if str(run) not in study.analysis.excluded:
            end, start = (rounds[place]["fixed_wrong_grade"].to_numpy(float) for place in (max(rounds), min(rounds)))
            found.setdefault((run.model, run.condition, run.task, run.task), {})[run.seed] = end - start
    table = pq.read_table(transfer).to_pandas()
    for (*key, graded), rows in table.groupby([*Run._fields, "graded"], observed=True, sort=False):
        run = Run(*key)
        if str(run) not in study.analysis.excluded:
            pair = (run.model, run.condition, run.task, graded)
            found.setdefault(pair, {})[run.seed] = (rows["wrong_grade"] - rows["base_wrong_grade"]).to_numpy(float)
    return found


def _stacked(rows: Sequence[Floats]) -> Floats:
    return np.array(rows, dtype=float)


def _mean(values: Floats) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else math.nan
