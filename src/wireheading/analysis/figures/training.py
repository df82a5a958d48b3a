"""Tables → figures of training: learning curves, grade inflation, reward against accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from wireheading.analysis.figures.style import Colour, colours_of, save, use_style
from wireheading.study.config import Study
from wireheading.study.paths import Tables

POINTS = 20
"""Points of a learning curve: each is the mean over a twentieth of the rounds."""


def write_figures(study: Study, tables: Tables, folder: Path) -> None:
    """Draws every figure of training, each with its data beside it.

    Args:
        study: The study's settings.
        tables: The tables of records.
        folder: Where the figures go.
    """
    use_style()
    runs, colours = pd.read_parquet(tables.runs), colours_of(study)
    columns = ["seed", "model", "task", "condition", "round", "reward", "accuracy", "grade"]
    learning_curves(pd.read_parquet(tables.rounds, columns=columns), colours, folder / "learning_curves.svg")
    # The last rounds of a run that diverged are not the end of its training.
    ended = runs[runs["status"] != "diverged"]
    grade_inflation(ended, colours, folder / "grade_inflation.svg")
    reward_vs_accuracy(ended, colours, folder / "reward_vs_accuracy.svg")


def learning_curves(rounds: pd.DataFrame, colours: Mapping[str, Colour], path: Path) -> None:
    """Reward, accuracy and grade over rounds: a line per condition, the mean over seeds with its 95 % t interval."""
    width = max(1, (int(rounds["round"].max()) + 1 if len(rounds) else 1) // POINTS)
    keys = ["model", "task", "condition", "seed"]
    binned = rounds.assign(round=rounds["round"] // width * width + width / 2)
    by_seed = binned.groupby([*keys, "round"], observed=True)[["reward", "accuracy", "grade"]].mean().reset_index()
    long = by_seed.melt(id_vars=[*keys, "round"], var_name="curve", value_name="value").dropna()
    lists = long.groupby(["model", "task", "condition", "curve", "round"], observed=True)["value"].agg(list)
    data = pd.DataFrame(
        [*lists.map(interval)], columns=["mean", "low", "high", "seeds"], index=lists.index
    ).reset_index()

    cells = _cells(rounds)
    figure, axes = plt.subplots(
        max(1, len(cells)), 3, figsize=(9, 2.3 * max(1, len(cells)) + 0.6), sharex=True, sharey=True, squeeze=False
    )
    for row, (model, task) in zip(axes, cells, strict=False):
        for axis, curve in zip(row, ("reward", "accuracy", "grade"), strict=True):
            part = data[(data["model"] == model) & (data["task"] == task) & (data["curve"] == curve)]
            for condition in present(part, colours):
                line = part[part["condition"] == condition]
                axis.plot(line["round"], line["mean"], c=colours[condition], label=condition, linewidth=1.6)
                axis.fill_between(line["round"], line["low"], line["high"], color=colours[condition], alpha=0.18, lw=0)
            axis.set_ylim(-0.02, 1.02)
        row[0].set_ylabel(_cell_name(cells, model, task))
    for axis, title in zip(axes[0], ("reward", "accuracy", "self-grade"), strict=True):
        axis.set_title(title)
    for axis in axes[-1]:
        axis.set_xlabel("round")
    legend(figure, axes[0][0])
    save(figure, data, path)
    plt.close(figure)


def grade_inflation(runs: pd.DataFrame, colours: Mapping[str, Colour], path: Path) -> None:
    """Grade minus score at the end of training: a dot per seed, the mean with its 95 % t interval."""
    data = runs.dropna(subset=["end_inflation"])[["model", "task", "condition", "seed", "end_inflation"]]
    cells = _cells(runs)
    figure, axes = plt.subplots(1, max(1, len(cells)), figsize=(2.6 * max(1, len(cells)) + 0.6, 3.2), sharey=True)
    for axis, (model, task) in zip(np.atleast_1d(axes), cells, strict=False):
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
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.6, max(len(names), 1) - 0.4)
        axis.set_title(_cell_name(cells, model, task))
    np.atleast_1d(axes)[0].set_ylabel("grade − score, last eighth of rounds")
    save(figure, data, path)
    plt.close(figure)


def reward_vs_accuracy(runs: pd.DataFrame, colours: Mapping[str, Colour], path: Path) -> None:
    """End reward against end accuracy, a dot per run: self-payment lies below the diagonal."""
    data = runs[["model", "task", "condition", "seed", "end_reward", "end_accuracy"]].dropna()
    cells = _cells(runs)
    figure, axes = plt.subplots(1, max(1, len(cells)), figsize=(2.6 * max(1, len(cells)) + 0.6, 3.2), sharey=True)
    for axis, (model, task) in zip(np.atleast_1d(axes), cells, strict=False):
        part = data[(data["model"] == model) & (data["task"] == task)]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        for condition in present(part, colours):
            dots = part[part["condition"] == condition]
            axis.scatter(
                dots["end_reward"], dots["end_accuracy"], color=colours[condition], label=condition, s=26, alpha=0.8
            )
        axis.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.04), title=_cell_name(cells, model, task), aspect="equal")
        axis.set_xlabel("reward at the end")
    np.atleast_1d(axes)[0].set_ylabel("accuracy at the end")
    legend(figure, np.atleast_1d(axes)[0])
    save(figure, data, path)
    plt.close(figure)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float, int]:
    """Mean of some values and its t interval, which is the mean itself for a single value: mean, low, high, count."""
    count, mean = len(values), float(np.mean(values))
    if count < 2:
        return mean, mean, mean, count
    half = float(stats.t.ppf(0.5 + level / 2, count - 1) * stats.sem(values))
    return mean, mean - half, mean + half, count


def _cells(table: pd.DataFrame) -> list[tuple[str, str]]:
    return list(table[["model", "task"]].drop_duplicates().itertuples(index=False, name=None))


def _cell_name(cells: Sequence[tuple[str, str]], model: str, task: str) -> str:
    return task if len({other for other, _ in cells}) == 1 else f"{model}\n{task}"


def present(part: pd.DataFrame, conditions: Iterable[str]) -> list[str]:
    """Those of some conditions that are in a table, in their order."""
    there = set(part["condition"])
    return [condition for condition in conditions if condition in there]


def legend(figure: Figure, axis: Axes) -> None:
    """One legend below the figure, of what is in one of its axes."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=len(labels), frameon=False)
