"""The figure that a reader sees first: what `selfgrade` was paid, and what its answers were worth."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from wireheading.analysis.figures.grid import legend
from wireheading.analysis.figures.style import RESULT_COLOURS, save, use_style

POINTS = 20
"""Points of a curve: each is the mean over a twentieth of the rounds."""

RESULT = ("model", "task", "condition", "seed", "round", "reward", "score")
"""Columns of the figure's table, which has a row for each point of each run; `round` is the middle of its rounds."""


CURVES = ("model", "task", "condition", "seed", "round", "reward", "score", "inflation")
"""Columns of the table of curves, in the same points."""


def curves_table(rounds: pd.DataFrame) -> pd.DataFrame:
    """Reward, score and inflation of every run, in points.

    Args:
        rounds: The table of rounds, or its first columns, reward, score and grade.

    Returns:
        A row for each point, with the columns of `CURVES`. Every round counts, but in `inflation`, the mean of
        grade − score, only those whose grade could be read; it is NaN where none could.
    """
    inflated = rounds.assign(inflation=rounds["grade"] - rounds["score"])
    keys, measures = list(CURVES[:5]), list(CURVES[5:])
    return in_points(inflated).groupby(keys, observed=True, sort=False)[measures].mean().reset_index()


def result_table(curves: pd.DataFrame) -> pd.DataFrame:
    """The figure's table: the curves of `selfgrade` and `control`.

    Args:
        curves: The table of curves.
    """
    return curves.loc[curves["condition"].isin(["selfgrade", "control"]), list(RESULT)]


def in_points(rounds: pd.DataFrame) -> pd.DataFrame:
    """The same rows, with the middle of its point for the round of each."""
    width = max(1, (int(rounds["round"].max()) + 1 if len(rounds) else 1) // POINTS)
    return rounds.assign(round=rounds["round"] // width * width + width / 2)


def draw_result(data: pd.DataFrame, path: Path) -> None:
    """Draws a panel for each model (row) and task (column): reward and score of `selfgrade`, and the gap between them.

    The same table gives the same bytes, whether it was just made or read from the CSV beside the figure.

    Args:
        data: Its table, see `RESULT`.
        path: The SVG file; the table goes beside it as CSV.
    """
    use_style()
    models, tasks = list(data["model"].unique()), list(data["task"].unique())
    size = (3.1 * max(1, len(tasks)), 2.5 * max(1, len(models)) + 0.3)
    figure, axes = plt.subplots(
        max(1, len(models)), max(1, len(tasks)), figsize=size, sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for row, model in zip(axes, models, strict=False):
        for axis, task in zip(row, tasks, strict=False):
            _panel(data[(data["model"] == model) & (data["task"] == task)], axis)
            axis.set_title(task if len(models) == 1 else f"{model} · {task}")
    for axis in axes[-1]:
        axis.set_xlabel("round")
    axes[0][0].set_ylim(-0.03, 1.03)
    legend(figure, axes)
    save(figure, data, path)
    plt.close(figure)


def _panel(data: pd.DataFrame, axis: Axes) -> None:
    """Draws one model and task: thin lines are seeds, thick ones their means."""
    selfgrade, control = (data[data["condition"] == name] for name in ("selfgrade", "control"))
    means = selfgrade.groupby("round")[["reward", "score"]].mean()
    above = (means["reward"] > means["score"]).to_numpy()
    axis.fill_between(
        means.index, means["score"], means["reward"], where=above, interpolate=True, label="gap: not earned",
        color=RESULT_COLOURS["reward"], alpha=0.15, lw=0,
    )  # fmt: skip
    for curve in ("reward", "score"):
        for _, line in selfgrade.groupby("seed"):
            axis.plot(line["round"], line[curve], color=RESULT_COLOURS[curve], linewidth=0.6, alpha=0.55)
        axis.plot(means.index, means[curve], color=RESULT_COLOURS[curve], linewidth=2.2, label=f"selfgrade's {curve}")
    mean = control.groupby("round")["score"].mean()
    axis.plot(
        mean.index, mean, color=RESULT_COLOURS["control"], linewidth=1.8, linestyle=(0, (4, 2)), label="control's score"
    )
    if data.empty or not np.isfinite(data[["reward", "score"]].to_numpy()).any():
        axis.annotate("no run yet", (0.5, 0.5), xycoords="axes fraction", ha="center")
