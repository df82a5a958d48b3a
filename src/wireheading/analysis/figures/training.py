"""Tables → figures of training: learning curves, grade inflation, reward against score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

from wireheading.analysis.figures.grid import cells, grid, label_rows, legend, name_places, present
from wireheading.analysis.figures.result import curves_table, draw_result, in_points, result_table
from wireheading.analysis.figures.style import Colour, colours_of, dashes_of, save, use_style
from wireheading.study.config import Study
from wireheading.study.paths import Tables

CURVES = {"reward": "reward", "score": "score", "grade": "grade, where readable", "unreadable": "part unreadable"}
"""The curves of training, and what their panels are called."""


def write_figures(study: Study, tables: Tables, folder: Path) -> None:
    """Draws every figure of training, each with its data beside it.

    Args:
        study: The study's settings.
        tables: The tables of records.
        folder: Where the figures go.
    """
    use_style()
    columns = ["seed", "model", "task", "condition", "round", "reward", "score", "grade", "parse_status"]
    rounds = pd.read_parquet(tables.rounds, columns=columns)
    draw_result(result_table(curves_table(rounds)), folder / "result.svg")
    learning_curves(study, rounds, folder / "learning_curves.svg")
    runs = pd.read_parquet(tables.runs)
    # The last rounds of a run that diverged are not the end of its training.
    ended = runs[runs["status"] != "diverged"]
    grade_inflation(study, ended, folder / "grade_inflation.svg")
    reward_vs_score(study, ended, folder / "reward_vs_score.svg")


def learning_curves(study: Study, rounds: pd.DataFrame, path: Path) -> None:
    """Reward, score, grade and unreadable grades over rounds: a thin line for each seed, a thick one for their mean."""
    asked = rounds["parse_status"] != "not_asked"
    # Of an imported run no status is known.
    unreadable = (rounds["grade"].isna() & asked).where(asked & rounds["parse_status"].notna())
    points = in_points(rounds.assign(unreadable=unreadable.astype(float)))
    keys = ["model", "task", "condition", "seed", "round"]
    data = points.groupby(keys, observed=True, sort=False)[[*CURVES]].mean().reset_index()

    places = [(model, task) for model in study.enabled_models for task in study.enabled_tasks]
    figure, axes = plt.subplots(
        len(places), len(CURVES), figsize=(10.5, 2.1 * len(places) + 0.4), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    colours, dashes = colours_of(study), dashes_of(study)
    for row, (model, task) in zip(axes, places, strict=True):
        part = data[(data["model"] == model) & (data["task"] == task)]
        for axis, curve in zip(row, CURVES, strict=True):
            for condition in present(part.dropna(subset=[curve]), colours):
                look = {"color": colours[condition], "linestyle": dashes[condition]}
                lines = part[part["condition"] == condition]
                for _, line in lines.groupby("seed"):
                    axis.plot(line["round"], line[curve], color=colours[condition], linewidth=0.6, alpha=0.5)
                mean = lines.groupby("round")[curve].mean()
                # On top, with gaps, so that a twin shows through.
                front = 5 if condition == "control" else 3
                axis.plot(mean.index, mean, label=condition, linewidth=1.8, zorder=front, **look)
            axis.set_ylim(-0.03, 1.03)
        row[0].set_ylabel(task if len(study.enabled_models) == 1 else f"{model}\n{task}")
    for axis, title in zip(axes[0], CURVES.values(), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("round")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def grade_inflation(study: Study, runs: pd.DataFrame, path: Path) -> None:
    """Grade minus score at the end of training: a dot per seed, the mean with its 95 % t interval."""
    data = runs.dropna(subset=["end_inflation"])[["model", "task", "condition", "seed", "end_inflation"]]
    figure, axes = grid(study, 2.7, 2.5)
    colours = colours_of(study)
    for model, task, axis in cells(study, axes):
        part = data[(data["model"] == model) & (data["task"] == task)]
        names = present(part, colours)
        for place, condition in enumerate(names):
            values = part.loc[part["condition"] == condition, "end_inflation"].tolist()
            mean, low, high, _ = interval(values)
            axis.plot([place - 0.22, place + 0.22], [mean, mean], color=colours[condition], linewidth=2.4)
            axis.plot([place, place], [low, high], color=colours[condition], linewidth=1.2)
            spread = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
            axis.scatter(place + np.asarray(spread), values, color=colours[condition], s=22, alpha=0.75, zorder=3)
        axis.axhline(0, color="0.3", linewidth=0.8)
        axis.set_ylim(-1.05, 1.05)  # an interval of two seeds may exceed what a grade can
        name_places(axis, names)
    label_rows(study, axes, "grade − score,\nlast eighth of rounds")
    save(figure, data, path)
    plt.close(figure)


def reward_vs_score(study: Study, runs: pd.DataFrame, path: Path) -> None:
    """End reward against end score, a dot per run: self-payment lies below the diagonal."""
    data = runs[["model", "task", "condition", "seed", "end_reward", "end_score"]].dropna()
    figure, axes = grid(study, 2.6, 2.6)
    colours: dict[str, Colour] = colours_of(study)
    for model, task, axis in cells(study, axes):
        part = data[(data["model"] == model) & (data["task"] == task)]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        for condition in present(part, colours):
            dots = part[part["condition"] == condition]
            # A ring around what lies in the same place.
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": colours[condition], "s": 60, "linewidths": 1.4}
            look = ring if condition == "control" else {"color": colours[condition], "s": 24, "alpha": 0.8}
            axis.scatter(dots["end_reward"], dots["end_score"], label=condition, zorder=3, **look)
        axis.set(xlim=(-0.03, 1.04), ylim=(-0.03, 1.04), aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("reward at the end")
    label_rows(study, axes, "score at the end")
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean of some values and its t interval, which is the mean itself for a single value: mean, low, high, count."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return mean, mean, mean, count
    half = float(stats.t.ppf(0.5 + level / 2, count - 1) * stats.sem(values))
    return mean, mean - half, mean + half, count
